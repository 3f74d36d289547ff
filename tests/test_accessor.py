"""The accessor is a veneer: each method is the function of the same name, with its signature and documentation."""

from __future__ import annotations

import inspect
import sys

import pytest
import xarray as xr

import sdaxr
from sdaxr.accessor import DatasetAccessor, DataTreeAccessor

METHODS = [
    (accessor, name)
    for accessor in (DatasetAccessor, DataTreeAccessor)
    for name in dir(accessor)
    if not name.startswith("_")
]


def function_of(name):
    return getattr(sdaxr if name in sdaxr.__all__ else sdaxr.observations, name)


def test_every_function_that_begins_with_data_is_a_method():
    expected = {
        "train",
        "observe",
        "superob",
        "thin",
        "drop_duplicates",
        "buddy_check",
        "inflate",
        "split",
        "estimate_errors",
        "with_bias",
        "assimilate",
        "cycle",
        "report",
        "innovations",
        "forecast",
        "denoise",
        "verify",
        "calibrate",
        "plot",
        "animate",
    }
    assert {name for accessor, name in METHODS if accessor is DatasetAccessor} == expected
    assert {name for accessor, name in METHODS if accessor is DataTreeAccessor} == {"assimilate", "cycle", "report"}


@pytest.mark.parametrize(("accessor", "name"), METHODS)
def test_signature_is_the_functions(accessor, name):
    function = inspect.signature(function_of(name))
    method = inspect.signature(getattr(accessor, name))
    assert next(iter(method.parameters)) == "self"
    assert list(method.parameters.values())[1:] == list(function.parameters.values())[1:]
    assert method.return_annotation == function.return_annotation


@pytest.mark.parametrize(("accessor", "name"), METHODS)
def test_documentation_is_the_functions(accessor, name):
    assert getattr(accessor, name).__doc__ == function_of(name).__doc__
    assert inspect.getdoc(getattr(accessor(None), name))


@pytest.mark.parametrize(("accessor", "name"), METHODS)
def test_every_argument_is_passed_on(monkeypatch, accessor, name):
    received = []
    home = sys.modules[function_of(name).__module__]
    monkeypatch.setattr(home, name, lambda *args, **kwargs: received.append((args, kwargs)))
    parameters = list(inspect.signature(getattr(accessor, name)).parameters.values())[1:]
    given = {p.name: object() for p in parameters}
    first = object()
    getattr(accessor(first), name)(
        *[given[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD],
        **{p.name: given[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY},
    )
    (args, kwargs) = received[0]
    assert args[0] is first
    assert list(args[1:]) == [given[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert kwargs == {p.name: given[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_shown_it_says_what_the_data_are(trajectories):
    text = repr(trajectories.sda)
    assert "kind        trajectories" in text and "train 8, valid 1, test 1" in text
    assert "y 8 (periodic), x 8 (periodic)" in text and "u [1], v [1]" in text
    assert "<td>trajectories</td>" in trajectories.sda._repr_html_()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda ds: ds.isel(trajectory=0), "fields"),
        (lambda ds: ds.rename(trajectory="member"), "posterior"),
        (lambda ds: ds.rename(trajectory="member", time="lead_time"), "forecast"),
        (lambda ds: ds.assign(u_error=0.1), "observations"),
        (lambda ds: ds.expand_dims("member"), "unclear"),
        (lambda ds: ds.drop_vars(["u", "v"]), "trajectories"),
        (lambda ds: xr.Dataset(), "fields"),
    ],
)
def test_each_kind_is_recognised_and_showing_never_raises(trajectories, change, kind):
    assert f" {kind}\n" in repr(change(trajectories).sda) + "\n"


def test_a_tree_shows_each_network(trajectories):
    single = trajectories.isel(trajectory=0).assign(u_error=0.1)
    text = repr(xr.DataTree.from_dict({"/a": single, "/b": single}).sda)
    assert "sdaxr /a" in text and "sdaxr /b" in text and text.count("observations") == 2
