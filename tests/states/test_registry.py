"""Objects from names and mappings: what is built, what is refused, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sdaxr.schema import OptionError
from sdaxr.states.registry import Options, Registry


class Shape:
    """Base of the shapes."""


@dataclass(frozen=True)
class Circle(Options, Shape):
    radius: float = 1.0


@dataclass(frozen=True)
class Polygon(Options, Shape):
    corners: tuple[int, ...]
    scale: float | str = "auto"
    filled: bool = False
    names: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)
    seed: int | None = None
    parts: tuple[Mapping[str, Any], ...] = ()
    anything: Mapping[str, Any] | None = None


class Other(Shape):
    """A shape without options."""


SHAPES: Registry[Shape] = Registry(
    "shape",
    Shape,
    {"circle": f"{__name__}:Circle", "polygon": f"{__name__}:Polygon", "missing": "nowhere_at_all:Missing"},
)


@dataclass(frozen=True)
class Picture(Options):
    shape: Shape | None = field(default=None, metadata={"registry": SHAPES})
    title: str = "picture"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("circle", Circle()),
        ({"name": "circle"}, Circle(1.0)),
        ({"name": "circle", "radius": "2e-1"}, Circle(0.2)),
        (Circle(3), Circle(3.0)),
        ({"name": "polygon", "corners": [3, "4", 5.0]}, Polygon((3, 4, 5))),
        ({"name": "polygon", "corners": 3 * [1], "scale": "auto"}, Polygon((1, 1, 1), "auto")),
        ({"name": "polygon", "corners": [], "scale": "0.5"}, Polygon((), 0.5)),
        ({"name": "polygon", "corners": (), "filled": "true"}, Polygon((), filled=True)),
        ({"name": "polygon", "corners": (), "names": "one"}, Polygon((), names=("one",))),
        ({"name": "polygon", "corners": (), "limits": [1, "2"]}, Polygon((), limits=(1.0, 2.0))),
        ({"name": "polygon", "corners": (), "seed": "7"}, Polygon((), seed=7)),
        ({"name": "polygon", "corners": (), "parts": [{"flip": ["x"]}]}, Polygon((), parts=({"flip": ["x"]},))),
        ({"name": "polygon", "corners": (), "anything": {"a": 1}}, Polygon((), anything={"a": 1})),
    ],
)
def test_objects_names_and_mappings(value: Any, expected: Shape) -> None:
    found = SHAPES.build(value)
    assert found == expected
    for name, option in vars(found).items():
        assert type(option) is type(getattr(expected, name))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("circel", r"unknown shape 'circel'; expected one of circle, missing, polygon. Did you mean 'circle'"),
        ({"name": "circle", "raduis": 1}, r"unknown option of circle: 'raduis'.*Did you mean 'radius'"),
        ({"name": "circle", "radius": "wide"}, r"radius='wide' for circle, expected a number such as 1.0"),
        ({"name": "circle", "radius": float("nan")}, "expected a number"),
        ({"name": "circle", "radius": True}, "expected a number"),
        ({"name": "circle", "radius": None}, "expected a number"),
        ({"name": "polygon"}, "polygon needs the option corners"),
        ({"name": "polygon", "corners": [1.5]}, "expected a list of a whole number"),
        ({"name": "polygon", "corners": 4}, "corners=4 for polygon, expected a list"),
        ({"name": "polygon", "corners": [], "filled": 2}, "expected true or false such as False"),
        ({"name": "polygon", "corners": [], "limits": [1, 2, 3]}, "expected 2 values, a number each"),
        ({"name": "polygon", "corners": [], "names": [1]}, "expected a list of a text"),
        ({"name": "polygon", "corners": [], "seed": float("inf")}, "expected a whole number"),
        ({"radius": 1}, "expected one of circle, missing, polygon, a mapping with a 'name'"),
        (3, "found 3 for the shape"),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SHAPES.build(value)


def test_an_object_that_is_made_in_python_is_converted_and_checked_too() -> None:
    assert Polygon([3, 4]) == Polygon((3, 4)) and hash(Polygon([3, 4]))
    with pytest.raises(OptionError, match="radius='wide' for Circle, expected a number"):
        Circle("wide")


@pytest.mark.parametrize("shape", [Circle(2), Polygon((3, 4), 0.5, True, ("a",), (0, 2), 5, ({"flip": ("x",)},))])
def test_what_is_described_is_built_again(shape: Shape) -> None:
    described = json.loads(json.dumps(SHAPES.describe(shape)))
    again = SHAPES.build(described)
    assert SHAPES.describe(again) == described and type(again) is type(shape)
    assert next(iter(described)) == "name"


def test_options_hold_objects_of_a_registry() -> None:
    picture = Picture.of({"shape": {"name": "circle", "radius": 2}})
    assert picture == Picture(Circle(2.0)) == Picture.of(picture)
    assert Picture.of(None) == Picture() and Picture("circle") == Picture(Circle())
    assert picture.to_dict() == {"shape": {"name": "circle", "radius": 2.0}, "title": "picture"}
    assert Picture().to_dict() == {"shape": None, "title": "picture"}
    with pytest.raises(OptionError, match="unknown option of Picture: 'shap'"):
        Picture.of({"shap": 1})
    with pytest.raises(OptionError, match=r"found 'x', expected Picture\(...\) or a mapping"):
        Picture.of("x")


def test_names_are_registered_once_and_imported_when_they_are_used() -> None:
    shapes: Registry[Shape] = Registry("shape", Shape, {"missing": "nowhere_at_all:Missing"})
    shapes.register("circle", f"{__name__}:Circle")
    shapes.register("circle", f"{__name__}:Circle")
    assert shapes.names() == ["circle", "missing"] and shapes.build("circle") == Circle()
    with pytest.raises(OptionError, match="the shape 'circle' is already"):
        shapes.register("circle", "elsewhere:Circle")
    with pytest.raises(OptionError, match="expected 'module:Class'"):
        shapes.register("square", "elsewhere")
    with pytest.raises(ModuleNotFoundError):
        shapes.build("missing")
    with pytest.raises(OptionError, match=r"the shape Other has no name; register it as '.*:Other' first"):
        shapes.name_of(Other())
