"""The checks on a GPU can fail: what is wrong is recorded as wrong. Rounding on a CPU is within the bounds."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipe_modules import recipe_modules

import sdaxr


@pytest.fixture(scope="module")
def gpu() -> Iterator[SimpleNamespace]:
    """The modules of the programme that this file is about."""
    with recipe_modules(
        "gpu", ["phase", "check_agreement", "check_networks", "check_posteriors", "check", "long"]
    ) as modules:
        yield modules


@pytest.fixture
def phase(gpu, tmp_path) -> Any:
    return gpu.phase.Phase("check", torch.device("cpu"), 60.0, False, tmp_path, tmp_path)


@pytest.fixture
def checks(gpu, phase) -> Any:
    return gpu.check_agreement.Checks(phase)


def raising() -> dict[str, Any]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")


def agreeing(gpu, factor: float) -> dict[str, Any]:
    expected = torch.linspace(-1, 1, 20).reshape(2, 10)
    return gpu.check_agreement.agreement({"x": (factor * expected, expected)}, 0.01)


def test_a_failed_check_is_recorded_and_the_others_go_on(gpu, checks, phase, monkeypatch):
    def part(checks: Any) -> None:
        checks("one", "raises", raising)
        checks("one", "differs", lambda: agreeing(gpu, 1.1))
        checks("one", "agrees", lambda: agreeing(gpu, 1.001))

    monkeypatch.setattr(gpu.check, "PARTS", (part,))
    with pytest.raises(SystemExit, match="2 of 3 failed"):
        gpu.check.run(phase)
    found = {line["case"]: line for line in phase.records("one")}
    assert [found[case]["passed"] for case in ("raises", "differs", "agrees")] == [False, False, True]
    assert found["raises"]["reason"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert found["differs"]["x"] == pytest.approx(0.1)
    (verdict,) = phase.records("verdict")
    assert (verdict["passed"], verdict["failed"], verdict["left_out"]) == (1, 2, 0)
    assert verdict["failures"] == ["one, raises", "one, differs"]


def test_what_passed_is_not_repeated_and_what_failed_is(gpu, checks, phase):
    for _ in range(2):
        checks("one", "differs", lambda: agreeing(gpu, 1.1))
        checks("one", "agrees", lambda: agreeing(gpu, 1.0))
    assert [line["case"] for line in phase.records("one")] == ["differs", "agrees", "differs"]
    assert checks.passed == {"one, differs": False, "one, agrees": True}


def test_without_time_a_check_is_left_out(checks, phase):
    phase.seconds = 0.0
    checks("one", "raises", raising)
    assert checks.passed == {"one, raises": None} and not phase.records("one")


@pytest.mark.parametrize(
    ("found", "error"), [([3.0, 4.0], 0.0), ([3.0, 9.0], 1.0), ([3.0, torch.nan], torch.inf), ([3.0], torch.inf)]
)
def test_difference_is_that_of_the_worst_member(gpu, found, error):
    expected = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    rows = torch.stack([torch.tensor(found), torch.tensor([3.0, 4.0])[: len(found)]])
    assert gpu.check_agreement.difference(rows, expected) == error


CASES = [("convolutional", "edm", "lorenz63"), ("space-time-unet", "spectral", "kolmogorov")]


@pytest.mark.parametrize(("name", "parameterisation", "source"), CASES)
def test_rounding_of_a_network_is_within_the_bounds(gpu, checks, name, parameterisation, source):
    prior = sdaxr.open_prior(source)
    found = gpu.check_networks._network(checks, name, parameterisation, prior)
    assert found["passed"]
    # Neither comparison is of a result with itself.
    assert 0 < found["float32"]["output"] < 1e-5 and 1e-3 < found["bfloat16"]["output"] < 0.02


@pytest.mark.parametrize("which", ["output", "gradient_in_z", "gradient_in_weights"])
def test_a_wrong_network_on_the_device_is_found(gpu, checks, monkeypatch, which):
    honest = gpu.check_networks.outcome

    def corrupted(model: Any, case: Any, *, half: bool = False) -> dict[str, torch.Tensor]:
        found = honest(model, case, half=half)
        on_device = not isinstance(model.network, gpu.check_networks._Double)
        return found | ({which: 1.05 * found[which]} if on_device else {})

    monkeypatch.setattr(gpu.check_networks, "outcome", corrupted)
    found = gpu.check_networks._network(checks, "mlp", "edm", sdaxr.open_prior("lorenz63"))
    assert not found["passed"] and not any(found[p]["passed"] for p in ("float32", "tf32", "bfloat16"))


def test_a_step_of_the_training_is_within_the_bounds(gpu, checks):
    found = gpu.check_networks._step(checks, "lorenz63")
    assert found["passed"] and found["moved"] and found["bfloat16"]["loss"] > 0


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_wrong_increment_of_guidance_is_found(gpu, checks, monkeypatch, factor):
    honest = gpu.check_posteriors.evaluations

    def corrupted(problem: Any) -> dict[str, torch.Tensor]:
        found = honest(problem)
        wrong = factor if problem.precision == "bfloat16" else 1.0
        return {key: wrong * value if key.startswith("increment") else value for key, value in found.items()}

    monkeypatch.setattr(gpu.check_posteriors, "evaluations", corrupted)
    found = gpu.check_posteriors._guidance(checks, "lorenz63", "sda", {})
    assert found["float32"]["passed"] and found["passed"] == (factor == 1.0)


def test_a_sampler_on_the_device_agrees(gpu, checks):
    found = gpu.check_posteriors._sampling(checks, "sde-dpm++")
    assert found["passed"] and found["bfloat16"]["members"] > 0


def test_every_method_and_variance_has_a_case(gpu):
    cases = set(gpu.check_posteriors.cases())
    for prior in ("lorenz63", "kolmogorov"):
        assert {f"{method}, {prior}" for method in ("sda", "mmps", "jacobian_free", "dmps", "soad", "dps")} <= cases


def lengths(megabytes: Any, seconds: Any) -> list[dict[str, Any]]:
    """Results of the phase ``long``, by functions of the length."""

    def line(length: int) -> dict[str, Any]:
        stage = {"megabytes": megabytes(length), "seconds": seconds(length)}
        return {"length": length, "finite": True, "setup": stage, "sampling": stage}

    return [line(length) for length in (1250, 2500, 5000, 10_000)]


@pytest.mark.parametrize(
    ("megabytes", "seconds", "wrong"),
    [
        (lambda n: 300 + 6 * n / 1000, lambda n: 0.1 + n, set()),
        (lambda n: 300 + 20 * n / 1000, lambda n: n, {"memory of setup", "memory of sampling"}),
        (lambda n: 300 + (n / 1000) ** 3, lambda n: n, {"memory of setup", "memory of sampling"}),
        (lambda n: 300, lambda n: n**1.5, {"time of setup", "time of sampling"}),
    ],
)
def test_what_grows_too_fast_is_found(gpu, megabytes, seconds, wrong):
    found = gpu.long.growth(lengths(megabytes, seconds), state=1000)
    assert {key for key, part in found.items() if not part["passed"]} == wrong


def test_members_of_a_large_ensemble_may_not_take_longer(gpu):
    few, many = ({"members": n, "finite": True, "seconds_per_member": s} for n, s in ((64, 1.0), (1024, 1.5)))
    assert gpu.long.sharing([many, few])["members"] == {"ratio": 1.5, "passed": False}
    assert gpu.long.sharing([few, many | {"seconds_per_member": 0.1}])["members"]["passed"]


def test_a_part_that_fails_is_recorded_and_the_others_go_on(gpu, phase):
    gpu.long.guarded(phase, "flow", raising, length=1)
    gpu.long.guarded(phase, "flow", lambda: {"finite": True}, length=2)
    gpu.long.guarded(phase, "flow", raising, length=2)
    (failure,) = phase.records("failure")
    assert failure["length"] == 1 and failure["reason"].startswith("RuntimeError: CUDA error")
    assert [line["length"] for line in phase.records("flow")] == [2]
