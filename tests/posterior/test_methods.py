"""Methods by name, and which options they get: the user's, the prior's, the defaults."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import sdaxr
from sdaxr.posterior.covariance.trajectory import TrajectoryCovariance
from sdaxr.posterior.methods import (
    DPS,
    FFBS,
    METHODS,
    MMPS,
    SDA,
    SOAD,
    Bounded,
    Covariance,
    FourDVar,
    Independent,
    JacobianFree,
    Matrix,
    Measured,
    Scalar,
    describe_method,
    names,
    resolve_method,
)
from sdaxr.schema import OptionError


def prior(**recorded) -> SimpleNamespace:
    return SimpleNamespace(name="p", metadata={"sampling": {"method": recorded}} if recorded else {})


def test_options_are_the_users_then_the_priors_then_the_defaults() -> None:
    shipped = prior(name="sda", variance={"name": "scalar", "gamma": 0.003})
    assert resolve_method(prior(), "sda") == SDA(variance=Measured())
    assert resolve_method(shipped, "sda") == SDA(variance=Scalar(0.003))
    assert resolve_method(shipped, {"variance": "measured"}) == SDA()
    assert resolve_method(shipped, "mmps") == MMPS()
    assert resolve_method(shipped, {"name": "mmps", "iterations": 2}) == MMPS(iterations=2)
    assert resolve_method(shipped, DPS(zeta=0.5)) == DPS(zeta=0.5)
    assert resolve_method(shipped) == SDA(variance=Scalar(0.003)) and resolve_method(prior()) == SDA()
    assert resolve_method(prior(name="mmps", iterations=7)) == MMPS(iterations=7)


@pytest.mark.parametrize("wrong", [3, sdaxr.samplers.DDIM()])
def test_an_object_of_another_kind_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="for the method, expected one of 4dvar, bpf"):
        resolve_method(prior(), wrong)


def test_a_variance_is_an_object_a_name_a_mapping_or_a_number() -> None:
    assert (
        SDA(variance=np.float64(0.01))
        == SDA(variance=0.01)
        == SDA(variance={"name": "scalar", "gamma": "0.01"})
        == SDA(variance=Scalar(0.01))
    )
    assert SDA(variance="bounded") == SDA(variance=Bounded(1.0))
    assert JacobianFree(covariance="independent") == JacobianFree(covariance=Independent())
    assert SOAD(variance="bounded", corrector="false") == SOAD(variance=Bounded(), corrector=False)


@pytest.mark.parametrize("name", list(METHODS.homes))
def test_every_method_has_a_name_documentation_and_a_record(name: str) -> None:
    method = METHODS.build(name)
    assert method.name == name and method.needs in ("prior", "system") and name in names(method.needs)
    assert METHODS.build(METHODS.describe(method)) == method
    about = describe_method(method)
    assert about["method"] == name and set(json.loads(about["method_options"])) == set(method.to_dict())
    kind = type(method)
    assert kind.__name__ in dir(sdaxr.methods) and getattr(sdaxr.methods, kind.__name__) is kind
    assert ("arXiv" in kind.__doc__ or "doi" in kind.__doc__) or name == "jacobian_free"


def test_data_are_recorded_by_their_hash() -> None:
    one, other = (xr.Dataset({"a": ("time", np.arange(3.0) + k)}) for k in (0, 1))
    records = [describe_method(FourDVar(first_guess=data))["method_options"] for data in (one, one, other)]
    assert records[0] == records[1] != records[2] and len(records[0]) < 200


def test_a_covariance_is_recorded_by_all_its_values() -> None:
    vectors = torch.eye(80, dtype=torch.float64)
    other = vectors.clone()
    other[40, 40] = -1.0
    covariances = [TrajectoryCovariance(torch.ones(80), each) for each in (vectors, vectors.clone(), other)]
    records = [describe_method(SDA(variance=each))["method_options"] for each in covariances]
    assert records[0] == records[1] != records[2]


def gamma(r: float) -> torch.Tensor:
    return r * torch.eye(2)


def test_a_function_is_recorded_by_its_name() -> None:
    record = json.loads(describe_method(SDA(variance=Matrix(gamma)))["method_options"])
    assert record == {"adapt": True, "variance": {"name": "matrix", "gamma": f"{__name__}.gamma"}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("sdaa", "unknown method 'sdaa'.*Did you mean 'sda'"),
        ({"name": "mmps", "steps": 3}, "unknown option of mmps: 'steps'"),
        ({"name": "mmps", "iterations": 0}, "iterations=0 for mmps, expected a whole number of at least 1"),
        ({"variance": -0.1}, "gamma=-0.1 for .*, expected a number of at least 0"),
        ({"variance": {"name": "bounded", "gamma": 0}}, "gamma=0.*expected a number above 0"),
        ({"variance": "scaler"}, "unknown variance 'scaler'.*Did you mean 'scalar'"),
        ({"variance": [1]}, r"variance=\[1\], expected one of"),
        ({"variance": {"gamma": 1}}, "a mapping with a 'name' and options, or a variance object"),
        ({"name": "soad", "variance": "scalar"}, "expected Measured\\(\\) or Bounded\\(\\) for the method 'soad'"),
        ({"name": "jacobian_free", "covariance": "bounded"}, "expected Covariance\\(\\), Measured\\(\\) or"),
        ({"name": "ffbs", "particles": 1}, "particles=1 for ffbs, expected a whole number of at least 2"),
    ],
)
def test_what_is_impossible_is_an_error(wrong, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve_method(prior(), wrong)


def test_a_covariance_that_has_not_been_estimated_says_so() -> None:
    with pytest.raises(OptionError, match="has not been estimated"):
        Covariance().slope(None, None, 1.0)


def test_methods_know_what_they_need() -> None:
    ensembles = ["enkf", "etkf", "ensrf", "letkf", "enks", "ienks", "pff", "ensf", "enff", "latent"]
    assert names("system") == ["bpf", "ffbs", "kalman", "4dvar", *ensembles]
    assert FFBS().needs == "system" and SDA().needs == "prior"


def test_an_unknown_class_offers_the_nearest() -> None:
    with pytest.raises(AttributeError, match="sdaxr.methods has no 'MMP'.*Did you mean 'MMPS'"):
        sdaxr.methods.MMP  # noqa: B018
