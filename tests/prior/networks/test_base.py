"""Every network of the registry: shapes, batches, noise levels, options; and the choice of one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from score_networks import CASES, initial, inputs, layout, seeing, small
from torch import Tensor

from sdaxr.prior import networks
from sdaxr.prior.networks.base import NETWORKS, Inputs, Network, NetworkModule, choose_network
from sdaxr.prior.networks.convolutional import TemporalConvolution
from sdaxr.prior.networks.unet import SpaceTimeUNet
from sdaxr.schema import OptionError


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("periodic", [True, False])
def test_output_has_the_shape_of_the_state(name: str, shape: tuple[int, ...], periodic: bool) -> None:
    of = layout(shape, periodic)
    network = seeing(small(name), of, 5)
    x, log_r, context = inputs(of, 5)
    out = network(x, log_r, context)
    assert out.shape == x.shape and bool(out.isfinite().all()) and float(out.std()) > 0
    alone = network(x[1:], log_r[1:], context)
    torch.testing.assert_close(out[1:], alone, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(network(x, log_r + 1, context), out)


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_networks_take_the_lengths_that_they_say(name: str, shape: tuple[int, ...], length: int) -> None:
    kind, of = NETWORKS.kind(name), layout(shape)
    network = seeing(small(name), of, 5)
    assert network.window == (5 if kind.windowed else None)
    assert (network.reach is None) == kind.windowed
    x, log_r, context = inputs(of, length)
    if kind.windowed:
        with pytest.raises(RuntimeError):
            network(x, log_r, context)
    else:
        assert network(x, log_r, context).shape == x.shape


@pytest.mark.parametrize(("name", "shape"), [case for case in CASES if case[0] != "mlp"])
def test_networks_begin_as_the_best_guess_without_any_knowledge(name: str, shape: tuple[int, ...]) -> None:
    """Nothing but the bias of the last layer: the denoiser of N(0, 1) data, and a loss of about one."""
    of = layout(shape)
    out = initial(small(name), of, 5)(*inputs(of, 5))
    assert float((out - out.mean()).abs().max()) < 0.5


@pytest.mark.parametrize("name", NETWORKS.names())
def test_options_come_back_from_json(name: str) -> None:
    network = small(name)
    described = json.loads(json.dumps(NETWORKS.describe(network)))
    assert NETWORKS.build(described) == network and described["name"] == name
    assert type(network).__doc__ and "arXiv" in str(type(network).__doc__)


@pytest.mark.parametrize(
    ("network", "option", "wrong"),
    [
        *((name, "blocks", -1) for name in NETWORKS.names()),
        *((name, "kernel", 4) for name in ("convolutional", "unet", "space-time-unet")),
        *((name, "widths", ()) for name in ("unet", "space-time-unet")),
        *((name, "widths", (8, 0)) for name in ("unet", "space-time-unet")),
        *((name, "patch", 0) for name in ("unet", "space-time-unet")),
        *((name, "deepest", -1) for name in ("unet", "space-time-unet")),
        *((name, "width", 0) for name in ("mlp", "convolutional")),
        ("convolutional", "dilation", 0),
        ("space-time-unet", "temporal", 2),
        ("space-time-unet", "refine", -1),
    ],
)
def test_impossible_options_are_refused(network: str, option: str, wrong: Any) -> None:
    with pytest.raises(OptionError, match=rf"found {option}=.* for {NETWORKS.kind(network).__name__}, expected"):
        replace(small(network), **{option: wrong})


@pytest.mark.parametrize(
    ("value", "gridded", "expected"),
    [
        ("auto", False, TemporalConvolution()),
        ("auto", True, SpaceTimeUNet()),
        ({"width": 8}, False, TemporalConvolution(width=8)),
        ({"name": "auto", "widths": [4, 8]}, True, SpaceTimeUNet(widths=(4, 8))),
        ("space-time-unet", True, SpaceTimeUNet()),
        (SpaceTimeUNet(patch=4), True, SpaceTimeUNet(patch=4)),
    ],
)
def test_the_network_is_chosen_by_name_mapping_and_object(value: Any, gridded: bool, expected: Network) -> None:
    assert choose_network(value, gridded=gridded) == expected


@pytest.mark.parametrize(
    ("value", "gridded", "message"),
    [
        ("convolutionl", False, r"unknown network 'convolutionl'.*Did you mean 'convolutional'"),
        ({"name": "mlp", "widht": 3}, False, r"unknown option of mlp: 'widht'.*Did you mean 'width'"),
        ({"widht": 3}, False, r"unknown option of convolutional: 'widht'"),
        ("mlp", True, r"found fields on a grid and the network ResidualMLP, .* one of space-time-unet, unet"),
        (SpaceTimeUNet(), False, r"found state vectors and the network SpaceTimeUNet, .* one of convolutional, mlp"),
        (3, True, "found 3 for the network"),
    ],
)
def test_networks_that_cannot_be(value: Any, gridded: bool, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_network(value, gridded=gridded)


@dataclass(frozen=True)
class Toy(Network):
    """A network that a user adds: one number times the state."""

    gridded: ClassVar[bool] = False

    factor: float = 0.5

    def module(self, inputs: Inputs) -> NetworkModule:
        return _Toy(self.factor)


class _Toy(NetworkModule):
    reach = 0

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor, log_r: Tensor, context: Tensor) -> Tensor:
        return self.factor * x


def test_a_user_adds_a_network_in_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NETWORKS, "homes", dict(NETWORKS.homes))
    networks.register("toy", f"{__name__}:Toy")
    found = choose_network({"name": "toy", "factor": "2"}, gridded=False)
    assert found == Toy(2.0) and NETWORKS.describe(found) == {"name": "toy", "factor": 2.0}
    of = layout(())
    x, log_r, context = inputs(of, 3)
    torch.testing.assert_close(initial(found, of, 3)(x, log_r, context), 2 * x)
