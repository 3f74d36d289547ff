"""Options of a step, checked before its files are there."""

from __future__ import annotations

import pytest

import sdaxr
from sdaxr.commands.checks import check_drawing, check_numbers, files_of_method
from sdaxr.schema import OptionError

WITH_PRIOR, WITH_SYSTEM = {"prior": "lorenz63"}, {"system": "lorenz63"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("assimilate", WITH_PRIOR | {"method": "sdaa"}, "unknown method 'sdaa'"),
        ("assimilate", WITH_PRIOR | {"method": {"name": "mmps", "iteration": 2}}, "Did you mean 'iterations'"),
        ("assimilate", WITH_PRIOR | {"sampler": {"name": "dpm++", "steps": 0}}, "steps=0"),
        ("assimilate", WITH_PRIOR | {"sampler": {"step": 4}}, "Did you mean 'steps'"),
        ("assimilate", WITH_PRIOR | {"method": {"varianc": 4}}, "Did you mean 'variance'"),
        ("assimilate", {"prior": "mine.safetensors", "sampler": {"step": 4}}, "Did you mean 'steps'"),
        ("assimilate", {"prior": "mine.safetensors", "method": {"varianc": 4}}, "Did you mean 'variance'"),
        ("assimilate", WITH_SYSTEM | {"method": {"particle": 4}}, "Did you mean 'particles'"),
        ("assimilate", WITH_PRIOR | {"method": "ffbs"}, "method='ffbs' needs a system, found a prior"),
        ("assimilate", WITH_SYSTEM | {"method": "mmps"}, "method='mmps' needs a prior, found a system"),
        ("assimilate", WITH_SYSTEM | {"sampler": "ddim"}, "found sampler= beside a system"),
        ("assimilate", WITH_SYSTEM | WITH_PRIOR, "found prior= beside a system"),
        ("assimilate", {}, "found neither prior nor system"),
        ("cycle", WITH_PRIOR | {"method": "kalman"}, "method='kalman' needs a system, found a prior"),
        ("cycle", WITH_SYSTEM | {"method": "ffbs"}, "method='ffbs' carries no ensemble from window to window"),
        ("cycle", WITH_SYSTEM | {"method": {"inflatio": 1.1}}, "unknown option of etkf: .*Did you mean 'inflation'"),
        ("cycle", WITH_SYSTEM | {"sampler": "ddim"}, "found sampler= beside a system"),
        ("cycle", WITH_SYSTEM | {"inflation": 2.0}, "found inflation= beside a system"),
        ("cycle", WITH_SYSTEM | {"carry": "lorenz63"}, "found carry= beside a system"),
        ("cycle", {}, "found neither prior nor system"),
        ("forecast", {"model": "lorenz63", "context": 2}, "found context= beside a system"),
        ("forecast", {"model": "mine.safetensors", "method": "bpf"}, "method='bpf' needs a system, found a prior"),
    ],
)
def test_what_cannot_draw_is_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_drawing(name, options, made={"mine.safetensors"})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("assimilate", WITH_PRIOR | {"method": "sda", "sampler": {"steps": 4}, "device": "cpu"}),
        ("assimilate", {"prior": "mine.safetensors", "method": {"variance": 0.1}, "sampler": {"steps": 4}}),
        ("assimilate", WITH_SYSTEM | {"method": {"particles": 4}, "device": "auto"}),
        ("cycle", WITH_SYSTEM | {"method": {"name": "letkf", "localisation": 4}, "window": 5}),
        ("cycle", WITH_SYSTEM | {"device": "auto", "inflation": 1.0}),
        ("forecast", {"model": "lorenz63", "steps": 4}),
        ("forecast", {"model": "mine.safetensors", "context": 2}),
    ],
)
def test_what_can_draw_is_taken(name: str, options: dict) -> None:
    check_drawing(name, options, made={"mine.safetensors"})


def test_options_are_those_of_the_method_that_the_file_of_the_prior_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = sdaxr.open_prior("lorenz63").with_sampling(method={"name": "mmps"}, sampler={"name": "ddim"})
    monkeypatch.setattr(sdaxr, "open_prior", lambda prior, **how: recorded)
    check_drawing("assimilate", WITH_PRIOR | {"method": {"iterations": 2}, "sampler": {"eta": 0.5}})
    with pytest.raises(OptionError, match="unknown option of mmps: 'corrector'"):
        check_drawing("assimilate", WITH_PRIOR | {"method": {"corrector": False}})
    # Known states guide a forecast by the default method, whatever the file of the prior records.
    check_drawing("forecast", {"model": "mine.safetensors", "method": {"variance": 0.1}})


@pytest.mark.parametrize("options", [{"seed": -1}, {"members": 0}, {"batch": 0}])
def test_impossible_numbers_are_refused(options: dict) -> None:
    with pytest.raises(OptionError, match="expected a whole number of at least"):
        check_numbers({"seed": 0, "members": 1, "batch": None} | options)


def test_files_among_the_options_of_a_method_are_known() -> None:
    assert files_of_method({"method": {"name": "4dvar"}}) == ["first_guess"]
    assert files_of_method({"method": {"particles": 4}, "system": "lorenz63"}) == files_of_method({"method": {}}) == []
