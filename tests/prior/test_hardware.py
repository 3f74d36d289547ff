"""The device and the precision."""

from __future__ import annotations

import psutil
import pytest
import torch

from sdaxr.prior.hardware import PRECISIONS, choose_device, choose_precision, free_bytes
from sdaxr.schema import OptionError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_a_gpu_where_there_is_one(there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device("auto").type == expected
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(
    ("device", "able", "fields", "expected"),
    [
        ("cuda", {}, True, "bfloat16"),
        ("cuda", {}, False, "float32"),
        ("cpu", {}, True, "float32"),
        ("cpu", {"avx512_bf16": True}, True, "bfloat16"),
        ("cpu", {"amx_bf16": True}, True, "bfloat16"),
        ("cpu", {"amx_bf16": True}, False, "float32"),
    ],
)
def test_auto_is_half_precision_where_it_is_fast(
    device: str, able: dict[str, bool], fields: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert choose_precision("auto", torch.device(device), fields=fields) == expected
    for precision in PRECISIONS:
        assert choose_precision(precision, torch.device(device), fields=fields) == precision


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(OptionError, match="precision='float23'; expected one of auto, bfloat16, float32"):
        choose_precision("float23", CPU, fields=True)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "hpu"])
def test_a_device_that_is_unknown_or_not_there_is_refused(device: str) -> None:
    with pytest.raises(OptionError, match=f"device='{device}', expected auto, cpu or another device that torch has"):
        choose_device(device)


def test_a_container_has_less_memory_than_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, available = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    assert 0.5 * available < free_bytes(CPU) < 1.5 * available
    monkeypatch.setattr("distributed.system.memory_limit", lambda: taken + 10**8)
    assert 0 < free_bytes(CPU) < 2 * 10**8
    monkeypatch.setattr("distributed.system.memory_limit", lambda: taken // 2)
    assert free_bytes(CPU) == 0
