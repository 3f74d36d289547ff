"""Operators from text: ``vorticity() >> coarsen(4) >> saturate()``, or JSON."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable

from sdaxr import schema
from sdaxr.operators import calculus, grid, interpolation, inversion, pointwise, standardise, temporal
from sdaxr.operators.base import Operator, from_json
from sdaxr.operators.locations import locations
from sdaxr.schema import OperatorError

FACTORIES: dict[str, Callable[..., Operator]] = {
    "identity": pointwise.identity,
    "select": pointwise.select,
    "coarsen": grid.coarsen,
    "subsample": grid.subsample,
    "region": grid.region,
    "points": interpolation.points,
    "locations": locations,
    "vorticity": calculus.vorticity,
    "pv_inversion": inversion.pv_inversion,
    "saturate": pointwise.saturate,
    "arctan": pointwise.arctan,
    "sin": pointwise.sin,
    "scale": pointwise.scale,
    "standardise": standardise.standardise,
    "time_difference": temporal.time_difference,
}


def parse(text: str) -> Operator:
    """The operator that ``text`` describes, as JSON or as calls joined by ``>>``. No code is executed.

    Raises
    ------
    OperatorError
        If ``text`` is neither, or names an unknown operator or parameter.
    """
    if text.lstrip().startswith("{"):
        return from_json(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise OperatorError(
            f"found the operator {schema.shown(text)}, which cannot be read ({error}); {_EXPECTED}"
        ) from error
    try:
        return _operator(tree, text)
    except RecursionError as error:
        raise OperatorError(f"found the operator {schema.shown(text)} of too many parts; {_EXPECTED}") from error


_EXPECTED = 'expected for example \'coarsen(8)\', \'vorticity() >> coarsen(4)\' or {"op": "coarsen", "factor": 8}'


def _operator(node: ast.expr, text: str) -> Operator:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return _operator(node.left, text) >> _operator(node.right, text)
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = _name(call.func, text)
    if name == "function":
        raise OperatorError("a Python function cannot be written as text; pass operator=... from Python")
    if name not in FACTORIES:
        raise OperatorError(f"there is no operator {schema.nearest(name, FACTORIES)}")
    args = [_literal(a, text) for a in call.args]
    kwargs = {k.arg or "**": _literal(k.value, text) for k in call.keywords}
    return _call(name, args, kwargs)


def _name(node: ast.expr, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("op", "operators"):
        return node.attr
    raise OperatorError(f"found the operator {schema.shown(text)}; {_EXPECTED}")


def _literal(node: ast.expr, text: str) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError) as error:
        raise OperatorError(
            f"found {schema.shown(ast.unparse(node))} in the operator {schema.shown(text)}, expected a number, a text, "
            "a list or a dict"
        ) from error


def _call(name: str, args: list[object], kwargs: dict[str, object]) -> Operator:
    factory = FACTORIES[name]
    signature = inspect.signature(factory)
    if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        for key in kwargs:
            if key not in signature.parameters:
                raise OperatorError(f"operator '{name}' has no parameter {schema.nearest(key, signature.parameters)}")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise OperatorError(f"operator '{name}{signature}': {error}".replace(" -> 'Operator'", "")) from error
    return factory(*args, **kwargs)
