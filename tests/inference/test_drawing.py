"""Members that disagree about the mode are drawn again, together; the case is a chain of which a distance is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from assimilated import CHAIN

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.archive import Archive
from sdaxr.archives.progress import finish, progress
from sdaxr.inference.assimilate import assimilate
from sdaxr.inference.drawing import Drawn, draw_batch
from sdaxr.observations.observe import observe
from sdaxr.posterior.modes import Agreement
from sdaxr.prior.files import Prior
from sdaxr.schema import ArchiveError, OptionError

DISTANCE = op.select("a") >> op.function(lambda fields: {"a": (fields["a"] - 280).abs()})
TIMES = CHAIN.truth(1).time
OPTIONS: dict[str, Any] = {
    "times": TIMES,
    "operator": DISTANCE,
    "progress": False,
    "sampler": {"steps": 20, "corrections": 1},
}
# Where it does not matter how good the draws are.
ROUGH: dict[str, Any] = OPTIONS | {"sampler": {"steps": 10, "corrections": 0}}


@pytest.fixture(scope="module")
def distances() -> xr.Dataset:
    """The distance of the first component from its mean in the middle of the window, three standard deviations."""
    truth = CHAIN.truth(1)
    return observe(truth.assign(a=286 + 0 * truth.a), DISTANCE, error=0.4, seed=3).isel(time=[4])


@pytest.fixture(scope="module")
def symmetric(prior: Prior) -> Prior:
    """The chain around zero, which knows that the sign of all its values is a matter of chance."""
    centred = replace(prior, layout=replace(prior.layout, mean=0 * prior.layout.mean))
    return centred.with_symmetries({"negate": ["a", "b"]})


def sizes(weak: float | None) -> tuple[dict[str, xr.Dataset], dict[str, op.Operator]]:
    """The size of the first component in the middle, and with a large error ``weak`` the component itself."""
    truth = CHAIN.truth(1)
    middle = truth.assign(a=6 + 0 * truth.a)
    size = op.select("a") >> op.function(lambda fields: {"a": fields["a"].abs()})
    networks = {"size": observe(middle, size, error=0.4, seed=3).isel(time=[4])}
    operators = {"size": size}
    if weak is not None:
        seen = observe(middle, op.select("a"), error=weak, seed=3).isel(time=[4])
        networks["itself"] = seen.assign(a=(0 * seen.a + 2).assign_attrs(seen.a.attrs))
        operators["itself"] = op.select("a")
    return networks, operators


@pytest.mark.parametrize("weak", [None, 4.0])
@pytest.mark.parametrize("mixing", [True, False])
def test_modes_that_are_images_have_their_shares(symmetric: Prior, weak: float | None, mixing: bool) -> None:
    """The shares are integrals over the one component that is seen, of variance 4."""
    networks, operators = sizes(weak)
    options = OPTIONS | {"operator": operators, "sampler": OPTIONS["sampler"] | {"mixing": mixing}}
    found = assimilate(networks, symmetric, members=400, **options)
    assert found.attrs["prior_symmetries"] == '[{"negate": ["a", "b"]}]'
    assert "mixing_sampler" not in found.attrs
    a, y = np.linspace(-20, 20, 40_001), float(networks["size"].a.squeeze())
    log = -(a**2) / 8 - (np.abs(a) - y) ** 2 / (2 * 0.4**2)
    log -= 0 if weak is None else (a - 2.0) ** 2 / (2 * weak**2)
    density = np.exp(log - log.max())
    expected = density[a > 0].sum() / density.sum()
    error = np.sqrt(expected * (1 - expected) / found.sizes["member"])
    assert share(found, 0.0) == pytest.approx(expected, abs=3 * error)
    # A member is the same among fewer, and in other batches.
    fewer = assimilate(networks, symmetric, members=70, batch=16, **options)
    np.testing.assert_allclose(fewer.a, found.a[:70], rtol=0, atol=1e-3)


@pytest.mark.parametrize("ensemble", [False, True])
def test_what_a_background_tells_of_the_sign_counts(symmetric: Prior, ensemble: bool) -> None:
    """An image has another sign at the first time, which the background excludes."""
    networks, operators = sizes(None)
    random = np.random.default_rng(0)
    background = CHAIN.truth(1).isel(time=[0])
    values = {"a": -4.0, "b": 1.0}
    if ensemble:
        attrs = {"units": "K"}
        background = xr.Dataset(
            {v: (("member", "time"), x + 0.5 * random.normal(size=(40, 1)), attrs) for v, x in values.items()},
            {"time": background.time},
        )
    else:
        for v, x in values.items():
            background[v] = (0 * background[v] + x).assign_attrs(units="K")
            background[f"{v}_error"] = (0 * background[v] + 0.5).assign_attrs(units="K")
    options = OPTIONS | {"operator": operators, "sampler": OPTIONS["sampler"] | {"mixing": False}}
    found = assimilate(networks, symmetric, members=60, background=background, **options)
    assert float((found.a.isel(time=0) < 0).mean()) == 1.0


@pytest.fixture
def few_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few as the test of modes can be made with, so that an ensemble with others is quickly drawn."""
    monkeypatch.setattr("sdaxr.inference.drawing.ENOUGH", 16)


def share(posterior: xr.Dataset, middle: float = 280.0) -> float:
    return float((posterior.a.isel(time=4) > middle).mean())


def test_members_in_two_modes_are_drawn_again_together(
    prior: Prior, distances: xr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    alone = assimilate(distances, prior, members=200, **OPTIONS | {"sampler": OPTIONS["sampler"] | {"mixing": False}})
    assert "mode_test" not in alone.attrs and "effective_members" not in alone.attrs
    found = assimilate(distances, prior, members=200, **OPTIONS)
    attrs = found.attrs
    assert attrs["sampler"] == "sde-dpm++" and attrs["mixing_sampler"] == "twisted"
    assert "gap of" in attrs["mode_test"] and "drawn again, together" in caplog.text
    assert 10 < attrs["effective_members"] <= 200
    assert alone.attrs["evaluations_per_member"] < attrs["evaluations_per_member"]
    assert attrs["evaluations_per_member"] <= 3 * alone.attrs["evaluations_per_member"]
    # By symmetry each mode has one half.
    assert share(found) == pytest.approx(0.5, abs=3 * np.sqrt(0.25 / attrs["effective_members"]))
    assert float(abs(abs(found.a.isel(time=4) - 280) - 6).max()) < 2.0


@pytest.mark.parametrize("seen", [op.identity(), op.select("a")], ids=["all", "one"])
def test_members_in_one_mode_are_left_as_they_are(prior: Prior, seen: op.Operator) -> None:
    observations = observe(CHAIN.truth(1), seen, every=2, error=0.4, seed=3)
    how = {"members": 100, "sampler": {"steps": 12, "corrections": 0}, "progress": False}
    found = assimilate(observations, prior, **how)
    alone = assimilate(observations, prior, **how | {"sampler": how["sampler"] | {"mixing": False}})
    assert found.attrs["mode_test"].startswith("0 of 64 members without weight")
    assert "mixing_sampler" not in found.attrs
    assert found.attrs["evaluations_per_member"] == alone.attrs["evaluations_per_member"]
    # The batches are others, which changes rounding.
    np.testing.assert_allclose(found.a, alone.a, rtol=0, atol=1e-3)


@pytest.mark.usefixtures("few_are_tested")
@pytest.mark.parametrize(("ending", "killed_at"), [("zarr", 4), ("zarr", 16 + 3), ("nc", 16 + 3)])
def test_a_killed_run_resumes_to_the_identical_result(
    prior: Prior, distances: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, killed_at: int
) -> None:
    options = ROUGH | {"members": 20, "batch": 8, "seed": 2, "store": tmp_path / f"p.{ending}"}
    whole = assimilate(distances, prior, **options | {"store": None})
    original, written = Archive.write, []

    def write(self: Archive, index: int, arrays: dict) -> None:
        if len(written) == killed_at:
            raise KeyboardInterrupt
        original(self, index, arrays)
        written.append(index)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "write", write)
        with pytest.raises(KeyboardInterrupt):
            assimilate(distances, prior, **options)
    drawn = []
    monkeypatch.setattr("sdaxr.inference.drawing.draw_batch", lambda *a: (drawn.append(a[0]), draw_batch(*a))[1])
    resumed = assimilate(distances, prior, **options)
    # The members that were tested are not drawn once more after the test.
    assert len(drawn) == (3 if killed_at < 16 else 1)
    xr.testing.assert_identical(
        resumed.drop_vars("status", errors="ignore").drop_attrs(deep=False).load(), whole.drop_attrs(deep=False)
    )
    for key in ("mode_test", "mixing_sampler", "mixing_sampler_options", "effective_members", "evaluations_per_member"):
        assert resumed.attrs[key] == whole.attrs[key]
    assert assimilate(distances, prior, **options).identical(resumed) and len(drawn) <= 3


def test_a_run_that_was_killed_after_its_last_member_tells_how_many_are_effective(
    prior: Prior, distances: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    options = ROUGH | {"members": 20, "seed": 2, "store": tmp_path / "p.zarr"}
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "finalise", stop)
        with pytest.raises(KeyboardInterrupt):
            assimilate(distances, prior, **options)
    resumed = assimilate(distances, prior, **options)
    whole = assimilate(distances, prior, **options | {"store": None})
    assert resumed.attrs["effective_members"] == whole.attrs["effective_members"]
    np.testing.assert_array_equal(resumed.a, whole.a)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    store = tmp_path_factory.mktemp("chain") / "t.zarr"
    chain = sdaxr.generate("lorenz63", store, trajectories=1, steps=9, split=(0, 0, 1), progress=False)
    return sdaxr.observe(chain.isel(trajectory=0).load(), op.select("a"), every=2, error=1.0, seed=1)


FEW: dict[str, Any] = {"batch": 2, "sampler": {"steps": 8, "corrections": 0}, "progress": False}


@pytest.mark.usefixtures("few_are_tested")
@pytest.mark.parametrize(("ending", "members", "mixing"), [("zarr", 22, True), ("nc", 22, False)])
def test_parts_in_any_order_are_the_members_of_the_whole(
    tmp_path: Path, seen: xr.Dataset, ending: str, members: int, mixing: bool
) -> None:
    """As jobs on several machines do it, of which one dies; more members than are tested, and few that are not."""
    last = members - 4
    store, options = tmp_path / f"p.{ending}", FEW | {"seed": 4, "sampler": FEW["sampler"] | {"mixing": mixing}}
    whole = assimilate(seen, "lorenz63", members=members, **options)
    found = assimilate(seen, "lorenz63", members=f"{last}:{members}/{members}", store=store, **options)
    assert found.member.values.tolist() == [*range(last, members)]
    np.testing.assert_array_equal(found.a, whole.a[last:])
    with pytest.raises(ArchiveError, match=f"0-{last - 1} are pending"):
        finish(store)
    written = Archive.write

    def killed(self: Archive, index: int, arrays: dict) -> None:
        if index == 13:
            raise KeyboardInterrupt
        written(self, index, arrays)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Archive, "write", killed)
        assimilate(seen, "lorenz63", members=f"8:{last}/{members}", store=store, **options)
    assert progress(store).complete == [*range(8, 13), *range(last, members)]
    for part in (f"0:8/{members}", f"8:{last}/{members}"):
        assert not store.exists()
        assimilate(seen, "lorenz63", members=part, store=store, **options)
    finished = sdaxr.open_archive(store)
    np.testing.assert_array_equal(finished.a, whole.a)
    assert finished.attrs.get("mode_test") == whole.attrs.get("mode_test") and ("mode_test" in whole.attrs) == mixing
    # A job that begins again afterwards has nothing to do.
    again = assimilate(seen, "lorenz63", members=f"8:{last}/{members}", store=store, **options)
    np.testing.assert_array_equal(again.a, whole.a[8:last])


def test_parts_whose_members_disagree_about_the_mode_are_not_finished(
    prior: Prior, distances: xr.Dataset, tmp_path: Path
) -> None:
    options = ROUGH | {"seed": 2, "batch": 10}
    store = tmp_path / "p.zarr"
    assimilate(distances, prior, members="0:10/40", store=store, **options)
    with pytest.raises(ArchiveError, match="has all members, which disagree about the mode .* in one process"):
        assimilate(distances, prior, members="10:40/40", store=store, **options)
    assert "gap of" in sdaxr.open_archive(store, allow_incomplete=True).attrs["mode_test"]
    together = assimilate(distances, prior, members=40, store=store, **options)
    whole = assimilate(distances, prior, members=40, **options)
    assert together.attrs["mixing_sampler"] == "twisted"
    np.testing.assert_array_equal(together.a, whole.a)


def test_a_part_without_a_store_is_in_memory(seen: xr.Dataset) -> None:
    found = assimilate(seen, "lorenz63", members="4:6/8", **FEW)
    assert found.member.values.tolist() == [4, 5]
    np.testing.assert_array_equal(found.a, assimilate(seen, "lorenz63", members=8, **FEW).a[4:6])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"system": "lorenz63"}, r"method with a system \(ffbs\)"),
        ({"prior": "lorenz63", "sampler": "twisted"}, "sampler 'twisted'"),
    ],
)
def test_members_that_are_drawn_together_are_not_divided(seen: xr.Dataset, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(OptionError, match=f"^found members='0:4/8', but the members of .*{reason}.* members=8$"):
        assimilate(seen, members="0:4/8", progress=False, **how)


def test_a_run_that_resumes_has_the_batches_of_the_first_one(
    tmp_path: Path, seen: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much memory is free then, and however many workers there are."""
    sizes: list[int] = []
    monkeypatch.setattr("sdaxr.inference.drawing.batch_size", lambda *a, **k: 3)
    monkeypatch.setattr(
        "sdaxr.inference.drawing.draw_batch", lambda *a: (sizes.append(len(a[2][a[0]])), draw_batch(*a))[1]
    )
    options = {"sampler": FEW["sampler"] | {"mixing": False}, "progress": False}
    assimilate(seen, "lorenz63", members="0:6/12", store=tmp_path / "p.zarr", **options)
    monkeypatch.setattr("sdaxr.inference.drawing.batch_size", lambda *a, **k: 6)
    assimilate(seen, "lorenz63", members="6:12/12", store=tmp_path / "p.zarr", **options)
    assert sizes == [3, 3, 3, 3]


def test_members_that_still_disagree_are_told(
    prior: Prior, distances: xr.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sdaxr.inference.drawing.agreement", lambda *_: Agreement(20, 15, 0.0))
    found = assimilate(distances, prior, members=20, **ROUGH)
    assert found.attrs["mode_test"].startswith("15 of 20 members without weight")
    assert "members disagree about the mode even where they are drawn together" in caplog.text


@pytest.mark.usefixtures("few_are_tested")
@pytest.mark.parametrize("ending", [None, "zarr"])
def test_members_of_one_particle_are_not_kept(
    prior: Prior, distances: xr.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    tmp_path: Path, ending: str | None,
) -> None:  # fmt: skip
    """In large states the weights may leave a single particle: its members are no better than a guess."""

    def collapsed(*how: Any) -> Drawn:
        drawn = draw_batch(*how)
        return Drawn(drawn.fields, {"effective_members": 1.0}) if how[1].sampler.together else drawn

    monkeypatch.setattr("sdaxr.inference.drawing.draw_batch", collapsed)
    options = ROUGH | {"members": 20, "store": ending and tmp_path / f"p.{ending}"}
    found = assimilate(distances, prior, **options)
    alone = assimilate(distances, prior, members=20, **ROUGH | {"sampler": ROUGH["sampler"] | {"mixing": False}})
    np.testing.assert_allclose(found.a, alone.a, rtol=0, atol=1e-3)
    assert found.attrs["mixing_failed"] == "1.0 of 20 members effective" and "effective_members" not in found.attrs
    assert found.attrs["evaluations_per_member"] > 3 * alone.attrs["evaluations_per_member"]
    assert "drawing them together leaves one of them" in caplog.text


def test_a_method_without_a_likelihood_is_not_tested(prior: Prior, distances: xr.Dataset) -> None:
    found = assimilate(distances, prior, members=20, method="dps", **ROUGH)
    assert "mode_test" not in found.attrs
