"""Prior files: what is written is what is opened, and what is no prior is told from one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from gaussian import GaussianChain
from safetensors import safe_open
from safetensors.torch import save_file
from small_training import trained
from unknown_offset import OffsetSeries

from sdaxr import operators as op
from sdaxr.prior.assembly import assemble
from sdaxr.prior.catalogue import priors
from sdaxr.prior.files import Prior
from sdaxr.prior.opening import open_prior
from sdaxr.prior.training import train
from sdaxr.schema import ArchiveError, OptionError, PriorError
from sdaxr.states.infer import infer_layout
from sdaxr.systems.lorenz63 import Lorenz63


@pytest.fixture
def prior(trajectories: xr.Dataset) -> Prior:
    """An untrained prior of the waves, with land and a static field."""
    land = trajectories.where((trajectories.x > 1) | (trajectories.y > 1)).drop_vars(["split", "status"])
    land["depth"] = (("y", "x"), np.random.default_rng(0).normal(size=(8, 8)))
    layout = infer_layout(land, context=["depth"])
    about = {
        "name": "waves",
        "network": {"name": "space-time-unet", "widths": [4, 8], "blocks": 1},
        "parameterisation": "edm",
        "optimisation": {"levels": [0.01, 50.0]},
        "window": 4,
        "sampling": {"sampler": {"name": "sde-dpm++", "corrections": 2}},
    }
    torch.manual_seed(0)
    network = assemble(layout, about)
    with torch.no_grad():
        network.network.last.weight.normal_()
    states = layout.to_array(land)[:3, :4].astype(np.float16).astype(np.float32)
    context = layout.context_array(land.time)[None, :4].astype(np.float16).astype(np.float32)
    return Prior(layout, network.eval().requires_grad_(False), (states, context), about)


def test_a_prior_comes_back_unchanged(prior: Prior, trajectories: xr.Dataset, tmp_path: Path) -> None:
    again = open_prior(prior.save(tmp_path / "deep" / "waves.safetensors"))
    assert again.metadata == prior.metadata and again.sha256 == prior.sha256 and repr(again) == repr(prior)
    assert again.window == 4 and again.name == "waves"
    for name, weight in prior.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name])
    for a, b in zip(again.reference, prior.reference, strict=True):
        np.testing.assert_array_equal(a, b)
    times = trajectories.time
    xr.testing.assert_identical(again.layout.template(times), prior.layout.template(times))
    z = torch.randn(1, 12, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.denoiser(times)(z, 1.0), prior.denoiser(times)(z, 1.0), rtol=0, atol=0)
    twice = open_prior(again.save(tmp_path / "again.safetensors"))
    assert twice.sha256 == prior.sha256 and twice.metadata == prior.metadata


def test_a_file_that_is_written_over_does_not_change_a_prior_in_use(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "waves.safetensors")
    opened = open_prior(path)
    with path.open("r+b") as file:
        file.write(b"\1" * path.stat().st_size)
    assert open_prior(opened.save(tmp_path / "again.safetensors")).sha256 == prior.sha256


def test_half_precision_halves_the_weights(prior: Prior, tmp_path: Path) -> None:
    whole, half = prior.save(tmp_path / "a.safetensors"), prior.save(tmp_path / "b.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.75 * whole.stat().st_size
    for name, weight in open_prior(half).network.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, prior.network.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_modes_stay_in_single_precision(prior: Prior, tmp_path: Path) -> None:
    """Half precision would turn small modes into large ones: their variances differ by a factor of a million."""
    network = assemble(prior.layout, prior.metadata | {"parameterisation": "spectral"})
    assert network.modes is not None
    network.modes.measure([torch.randn(500, 2, 8, 8, generator=torch.Generator().manual_seed(0))])
    spectral = Prior(prior.layout, network, prior.reference, prior.metadata | {"parameterisation": "spectral"})
    again = open_prior(spectral.save(tmp_path / "p.safetensors", dtype=torch.float16)).network.modes
    assert again is not None
    assert torch.equal(again.vectors, network.modes.vectors) and torch.equal(again.variances, network.modes.variances)


def test_the_many_vectors_of_an_augmented_prior_are_rounded_and_stay_orthonormal(prior: Prior, tmp_path: Path) -> None:
    about = prior.metadata | {"parameterisation": "spectral"}
    network = assemble(prior.layout, about)
    assert network.modes is not None
    network.modes.measure([torch.randn(500, 2, 8, 8, generator=torch.Generator().manual_seed(0))])
    operator = {"operator": op.sin().to_dict(), "stored": {"u": "v"}}
    augmented = Prior(prior.layout, network, prior.reference, about | {"augment": {"sin": operator}})
    again = open_prior(augmented.save(tmp_path / "p.safetensors", dtype=torch.float16)).network.modes
    assert again is not None
    torch.testing.assert_close(again.vectors, network.modes.vectors, rtol=0, atol=1e-3)
    product = again.vectors.mT @ again.vectors
    torch.testing.assert_close(product, torch.eye(product.shape[-1]).expand_as(product), rtol=0, atol=1e-6)


def test_eofs_are_kept_at_sea_only_and_rounded(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(60, 6, 8)).cumsum(1).cumsum(2)
    values[:, :3] = np.nan
    coords = {"time": np.arange(60.0), "y": np.arange(6.0), "x": np.arange(8.0)}
    data = xr.Dataset({"t": (("time", "y", "x"), values, {"units": "K"})}, coords)
    path = tmp_path / "p.safetensors"
    options = {"network": {"widths": [4], "patch": 1}, "optimisation": {"batch": 2}, "progress": False}
    modes = train(data, path, window=4, steps=0, **options).network.modes
    with safe_open(path, framework="pt") as file:
        stored = file.get_tensor("network.modes.vectors")
    assert stored.dtype == torch.float16 and len(stored) == 24
    vectors = open_prior(path).network.modes.vectors
    assert torch.equal(vectors, modes.vectors) and float(vectors[:24].abs().max()) == 0
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(vectors.shape[1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(vectors[24:], stored.float(), rtol=0, atol=2e-3)


def test_sampling_settings_are_kept(prior: Prior, tmp_path: Path) -> None:
    recorded = prior.metadata["sampling"]
    method = {"name": "sda", "variance": {"name": "scalar", "gamma": 0.003}}
    tuned = prior.with_sampling(method=method)
    assert tuned.metadata["sampling"] == recorded | {"method": method} and prior.metadata["sampling"] == recorded
    assert open_prior(tuned.save(tmp_path / "p.safetensors")).metadata["sampling"] == recorded | {"method": method}


def test_symmetries_are_those_of_the_training_until_others_are_recorded(tmp_path: Path) -> None:
    chain = GaussianChain(5).prior()
    assert chain.symmetries == [] and "prior_symmetries" not in chain.provenance
    centred = replace(chain, layout=replace(chain.layout, mean=0 * chain.layout.mean))
    of_training = replace(centred, metadata=centred.metadata | {"statistics": {"symmetries": [{"negate": ["a"]}]}})
    assert [s.signs.tolist() for s in of_training.symmetries] == [[-1.0, 1.0]]
    recorded = of_training.with_symmetries({"negate": ["a", "b"]})
    assert [s.signs.tolist() for s in recorded.symmetries] == [[-1.0, -1.0]]
    assert recorded.provenance["prior_symmetries"] == '[{"negate": ["a", "b"]}]'
    assert recorded.sha256 == chain.sha256
    assert of_training.with_symmetries().symmetries == []


def test_the_shipped_prior_of_lorenz63_has_the_symmetry_of_its_system(tmp_path: Path) -> None:
    prior = open_prior("lorenz63")
    again = open_prior(prior.with_symmetries().save(tmp_path / "p.safetensors"))
    assert again.symmetries == [] and again.sha256 == prior.sha256
    assert prior.metadata["symmetries"] == [dict(each) for each in Lorenz63.symmetries]


@pytest.mark.parametrize(
    ("symmetry", "expected"),
    [({"negate": ["d"]}, "'d'; expected one of a, b"), ({"negate": ["a"]}, "negates a variable whose mean is 1.4e")],
)
def test_impossible_symmetries_are_refused(symmetry: dict[str, list[str]], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        GaussianChain(5).prior().with_symmetries(symmetry)


def test_an_open_prior_is_returned_as_it_is(prior: Prior) -> None:
    assert open_prior(prior) is prior
    assert "waves" in repr(prior) and "u, v on 8 x 8" in repr(prior) and "parameters" in repr(prior)


def test_the_file_holds_arrays_and_json_only(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "p.safetensors")
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert metadata["sdaxr"] == "sdaxr prior 2" and json.loads(metadata["about"])["name"] == "waves"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    json.loads(path.read_bytes()[8 : 8 + length])  # the whole header is JSON, the rest numbers: nothing to unpickle


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files(prior: Prior, tmp_path: Path, keep: int) -> None:
    path = prior.save(tmp_path / "p.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PriorError, match=r"p.safetensors' cannot be read as a prior .* truncated or no .safetensors"):
        open_prior(path)


def test_foreign_files(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}, {"sdaxr": "posterior"}):
        save_file({"weight": torch.zeros(3)}, foreign, metadata)
        with pytest.raises(PriorError, match=r"is a .safetensors file of another program"):
            open_prior(foreign)
    text = tmp_path / "notes.txt"
    text.write_text("not a prior at all, but long enough to be one")
    with pytest.raises(PriorError, match="cannot be read as a prior"):
        open_prior(text)
    with pytest.raises(PriorError, match="cannot be read as a prior"):
        open_prior(tmp_path)  # a directory


@pytest.mark.parametrize("version", ["1", "99"])
def test_other_versions_of_the_format_are_refused_in_one_line(version: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"sdaxr": f"sdaxr prior {version}", "about": "{}"})
    with pytest.raises(PriorError, match=rf"has the format 'sdaxr prior {version}', expected 'sdaxr prior 2'") as error:
        open_prior(path)
    assert "\n" not in str(error.value)


def test_a_file_is_replaced_as_a_whole(prior: Prior, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What ends the writing leaves the file that was there, which everybody may read, and nothing else."""
    path = prior.save(tmp_path / "p.safetensors")
    before = path.read_bytes()

    def die(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", die)
        prior.with_sampling(sampler={"name": "dpm++"}).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    prior.with_sampling(sampler={"name": "dpm++"}).save(path)
    assert open_prior(path).metadata["sampling"] == {"sampler": {"name": "dpm++"}}


def test_unknown_names_are_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sdaxr.prior.catalogue._shipped", lambda: {"kolmogorov": tmp_path, "lorenz63": tmp_path})
    assert priors() == ["kolmogorov", "lorenz63"]
    with pytest.raises(
        PriorError, match=r"'kolmogorow'; expected one of kolmogorov, lorenz63. Did you mean 'kolmogorov'"
    ):
        open_prior("kolmogorow")
    with pytest.raises(PriorError, match="found neither a file nor a shipped prior"):
        open_prior(tmp_path / "missing.safetensors")


def test_a_place_that_cannot_be_written(prior: Prior, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="cannot write .*a folder of this path is a file, or a link to nothing"):
        prior.save(tmp_path / "file" / "p.safetensors")


def test_trajectories_beyond_what_the_network_was_shown(
    prior: Prior, trajectories: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    """The network reaches 3 states, and is asked for trajectories of 12 after windows of 4, 3 and 12."""
    for window, sampler, warned in ((4, {}, 0), (3, {}, 1), (3, {"name": "ddim"}, 0), (12, {}, 0)):
        caplog.clear()
        about = prior.metadata | {"window": window, "sampling": {"sampler": sampler}}
        replace(prior, metadata=about).denoiser(trajectories.time)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == warned, (window, sampler)
        assert all("trained on windows of 3: " in text and "these have 12 states" in text for text in said)


def test_a_channel_that_is_constant_becomes_a_parameter_by_the_metadata_alone(tmp_path: Path) -> None:
    data = OffsetSeries(8, 4).trajectories(12, seed=0)
    data = data.assign_coords(split=("trajectory", np.array(["train"] * 10 + ["valid"] * 2, object)))
    fields = data.assign(forcing=data.forcing.broadcast_like(data.x).assign_attrs(data.forcing.attrs))
    options = {"parameterisation": "edm", "network": "auto", "window": 5}
    by_hand = trained(fields, tmp_path / "h.safetensors", **options)
    assert by_hand.layout.variables == ("x", "forcing") and not by_hand.layout.parameters
    prior = open_prior(by_hand.with_parameters("forcing").save(tmp_path / "p.safetensors"))
    assert prior.layout.parameters == ("forcing",)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(prior), weights_of(by_hand), strict=True))
    np.testing.assert_allclose(prior.layout.to_array(data), by_hand.layout.to_array(fields), rtol=1e-5, atol=1e-6)
    # Each value has noise of its own, as in the training; where the parameter is trained as one, it is one number.
    own = trained(data, tmp_path / "o.safetensors", variables=["x", "forcing"], **options)
    assert prior.network.constants == () and own.network.constants == (1,)
    assert open_prior(tmp_path / "o.safetensors").metadata["shared_noise"] is True


def weights_of(prior: Prior) -> list[torch.Tensor]:
    return list(prior.network.state_dict().values())


@pytest.mark.parametrize(
    ("names", "expected"), [(("force",), "'force'; expected one of forcing, x"), (("x", "forcing"), "alone")]
)
def test_impossible_parameters_are_refused(names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        OffsetSeries(5, 3).prior().with_parameters(*names)


def test_held_out_windows_are_denoised_once_for_what_is_opened_again(prior: Prior, tmp_path: Path) -> None:
    """And anew where tensors or header are others, and for a prior that is derived from one."""
    cpu = torch.device("cpu")
    first, again = (open_prior(prior.save(tmp_path / f"{name}.safetensors")) for name in ("one", "two"))
    assert again.held_out(cpu) is first.held_out(cpu)
    doubled = replace(first, reference=(2 * first.reference[0], first.reference[1]))
    torch.testing.assert_close(doubled.held_out(cpu).states, 2 * first.held_out(cpu).states)
    header = prior.metadata | {"optimisation": {"levels": [0.1, 50.0]}}
    for other in (doubled, replace(prior, metadata=header)):
        opened = open_prior(other.save(tmp_path / "other.safetensors")).held_out(cpu)
        torch.testing.assert_close(opened.states, other.held_out(cpu).states)
        assert opened.levels[0] == pytest.approx(other.metadata["optimisation"]["levels"][0])
