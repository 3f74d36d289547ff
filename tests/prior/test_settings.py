"""Settings of a training: defaults by kind of data, conversions, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import sdaxr
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.mlp import ResidualMLP
from sdaxr.prior.networks.unet import SpaceTimeUNet, WindowUNet
from sdaxr.prior.settings import Optimisation, Settings, Statistics
from sdaxr.prior.sizes import Sizes
from sdaxr.schema import OptionError

DEFAULTS: dict[str, Any] = {
    "window": None, "network": "auto", "parameterisation": "auto", "statistics": None, "optimisation": None,
    "steps": None, "minutes": None, "seed": 0,
}  # fmt: skip


def chosen(gridded: bool = False, **options: Any) -> Settings:
    sizes = Sizes((64, 64) if gridded else (), 1000, 100)
    return Settings.choose(sizes=sizes, device=torch.device("cpu"), **(DEFAULTS | options))


@pytest.mark.parametrize(
    ("gridded", "options", "window", "network", "parameterisation"),
    [
        (False, {}, 33, TemporalConvolution(), "edm"),
        (True, {}, 8, SpaceTimeUNet(widths=(32, 64)), "auto"),
        (False, {"network": "mlp"}, 5, ResidualMLP(), "edm"),
        (True, {"network": "unet"}, 5, WindowUNet(), "auto"),
        (True, {"parameterisation": "space-time"}, 5, SpaceTimeUNet(widths=(32, 64)), "space-time"),
        (True, {"window": 3, "network": {"patch": 4}}, 3, SpaceTimeUNet(widths=(32, 64), patch=4), "auto"),
        (True, {"network": {"widths": (8,)}}, 8, SpaceTimeUNet(widths=(8,)), "auto"),
        (True, {"network": "space-time-unet"}, 12, SpaceTimeUNet(), "auto"),
        (True, {"network": SpaceTimeUNet(blocks=1)}, 8, SpaceTimeUNet(blocks=1), "auto"),
    ],
)
def test_defaults_follow_the_data(
    gridded: bool, options: dict[str, Any], window: int, network: object, parameterisation: str
) -> None:
    settings = chosen(gridded, **options)
    assert (settings.window, settings.network) == (window, network)
    assert settings.parameterisation == parameterisation
    assert settings.optimisation.shortest == window and settings.optimisation.precision in ("float32", "bfloat16")
    assert settings.steps == 20_000 and settings.minutes is None


def test_minutes_take_the_place_of_the_default_number_of_steps() -> None:
    assert (chosen(minutes=5).steps, chosen(minutes=5).minutes) == (None, 5)
    assert (chosen(steps=3, minutes=5).steps, chosen(steps=3, minutes=5).minutes) == (3, 5)


def test_objects_and_mappings_are_the_same() -> None:
    objects = chosen(
        True, statistics=sdaxr.Statistics(homogeneous="x"), optimisation=sdaxr.Optimisation(levels=[0.01, 5])
    )
    mappings = chosen(True, statistics={"homogeneous": ["x"]}, optimisation={"levels": ["1e-2", "5"]})
    assert objects == mappings and objects.optimisation.levels == (0.01, 5.0)


def test_the_file_has_all_that_decides_what_is_learned() -> None:
    about = json.loads(json.dumps(chosen(steps=7, optimisation={"batch": 4, "memory": 1e8}).to_dict()))
    assert about["network"] == {"name": "convolutional", "width": 64, "blocks": 4, "kernel": 5, "dilation": 1}
    defaults = {"normalise": "auto", "cycles": None, "homogeneous": [], "symmetries": [], "missing": "error"}
    assert about["statistics"] == defaults | {"taper": None, "patches": {}}
    assert about["optimisation"]["batch"] == 4 and about["optimisation"]["shortest"] == 33
    assert not {"compile", "memory", "validate_every"} & set(about["optimisation"])
    assert (about["window"], about["steps"], about["minutes"], about["seed"]) == (33, 7, None, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "convolutionl"}, "Did you mean 'convolutional'"),
        ({"network": {"widht": 8}}, "Did you mean 'width'"),
        ({"parameterisation": "edn"}, "Did you mean 'edm'"),
        ({"optimisation": {"precision": "float23"}}, "Did you mean 'float32'"),
        ({"optimisation": {"weighting": "relativ"}}, "Did you mean 'relative'"),
        ({"optimisation": {"bacth": 4}}, "unknown option of Optimisation: 'bacth'.*Did you mean 'batch'"),
        ({"optimisation": 3}, r"found 3, expected Optimisation\(...\) or a mapping"),
        ({"optimisation": {"batch": 0}}, "batch=0 for Optimisation, expected a whole number of at least 1"),
        ({"optimisation": {"batch": 2.5}}, "batch=2.5 for Optimisation, expected a whole number"),
        ({"optimisation": {"ema": 2}}, "ema=2 for Optimisation, expected a number of at least 0 and of at most 1"),
        ({"optimisation": {"levels": [5, 1]}}, "expected two positive numbers, the smaller one first"),
        ({"optimisation": {"levels": [1, 2, 3]}}, "levels=.* for Optimisation, expected 2 values"),
        ({"optimisation": {"weight_decay": -1}}, "expected a number of at least 0"),
        ({"statistics": {"normalise": "points"}}, "Did you mean 'point'"),
        ({"statistics": {"cycles": ["hour"]}}, "cycles='hour'; expected one of day_of_year, hour_of_day"),
        ({"network": "mlp", "window": 4}, "window=4, expected an odd number.*ResidualMLP"),
        ({"window": 0}, "window=0, expected a whole number of at least 1"),
        (
            {"window": 5, "optimisation": {"shortest": 0}},
            "shortest=0 for Optimisation, expected a whole number",
        ),
        ({"window": 5, "optimisation": {"shortest": 6}}, r"shortest=6, expected 1 to the window \(5\)"),
        ({"network": "mlp", "optimisation": {"shortest": 3}}, "expected the window itself for a prior of windows"),
        ({"steps": -1}, "steps=-1, expected a whole number of at least 0"),
        ({"seed": -1}, "seed=-1, expected a whole number of at least 0"),
        ({"minutes": 0}, "minutes=0, expected a number above 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        chosen(**options)


@pytest.mark.parametrize("kind", [Statistics, Optimisation])
def test_every_option_is_documented(kind: type) -> None:
    for name in kind.__dataclass_fields__:
        assert f"\n    {name}\n" in str(kind.__doc__), name
