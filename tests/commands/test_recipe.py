"""Recipes: checked as a whole before anything runs; done steps are skipped; changes are noticed."""

from __future__ import annotations

import functools
import json
import logging

import pytest
import xarray as xr
import yaml

import sdaxr
from sdaxr.archives.object_archive import ObjectArchive
from sdaxr.archives.paths import located
from sdaxr.archives.stores import save
from sdaxr.commands import recipe
from sdaxr.schema import ArchiveError, OptionError

GENERATE = {"system": "lorenz63", "store": "t.zarr", "trajectories": 3, "steps": 6, "seed": 0, "split": [0.4, 0.3, 0.3]}
LATER = {
    "assimilate": {"observations": "o.nc", "system": "lorenz63", "store": "p.zarr"},
    "cycle": {"observations": "o.nc", "prior": "lorenz63", "store": "p.zarr"},
    "forecast": {"ensemble": "o.nc", "model": "lorenz63", "steps": 2, "store": "p.zarr"},
}
OBSERVE = {"truth": "t.zarr", "trajectory": -1, "operator": {"op": "identity"}, "every": 2, "error": 0.1}


def write(folder, **content):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def chain(folder, **changes):
    observe = OBSERVE | {"seed": 1, "store": "obs.nc"} | changes
    return write(folder, generate=GENERATE, observe=observe)


def test_the_chain_runs_once_and_is_the_functions(tmp_path):
    path = chain(tmp_path)
    assert list(recipe.run(path, progress=False)) == ["1 generate", "2 observe"]
    truth = sdaxr.open_archive(tmp_path / "t.zarr").isel(trajectory=-1)
    expected = sdaxr.observe(truth, sdaxr.operators.identity(), every=2, error=0.1, seed=1)
    with sdaxr.open_archive(tmp_path / "obs.nc") as written:
        xr.testing.assert_identical(written.load(), expected.load())
    assert recipe.run(path, progress=False) == {}
    assert recipe.status(path)["complete"] == "yes"


def test_a_step_whose_output_is_gone_runs_again(tmp_path):
    path = chain(tmp_path)
    recipe.run(path, progress=False)
    (tmp_path / "obs.nc").unlink()
    assert recipe.status(path)["2 observe"].startswith("to do")
    assert list(recipe.run(path, progress=False)) == ["2 observe"]


def test_a_changed_step_is_refused_with_the_difference_and_redone_when_asked(tmp_path):
    recipe.run(chain(tmp_path), progress=False)
    path = chain(tmp_path, every=3)
    with pytest.raises(ArchiveError, match=r"every: 2 -> 3.*--overwrite"):
        recipe.run(path, progress=False)
    assert list(recipe.run(path, overwrite=True, progress=False)) == ["2 observe"]
    with sdaxr.open_archive(tmp_path / "obs.nc") as written:
        assert written.sizes["time"] == 2


def test_what_depends_on_a_changed_step_is_redone(tmp_path):
    recipe.run(chain(tmp_path), progress=False)
    observe = OBSERVE | {"seed": 1, "store": "obs.nc"}
    path = write(tmp_path, generate=GENERATE | {"seed": 9}, observe=observe)
    assert list(recipe.run(path, overwrite=True, progress=False)) == ["1 generate", "2 observe"]


class Killed(BaseException):
    """What nobody handles."""


def killed(path, monkeypatch, moment, **options):
    """Run a recipe that is killed before or after the step that writes observations, or before its note."""

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "in the step":
            patch.setattr(sdaxr, "observe", functools.wraps(sdaxr.observe)(die))
        else:
            finish = recipe._State.finish
            patch.setattr(recipe._State, "finish", lambda state, s: (die if s.name == "observe" else finish)(state, s))
        with pytest.raises(Killed):
            recipe.run(path, progress=False, **options)


def error_of(path):
    with sdaxr.open_archive(path) as written:
        return float(written.a_error)


@pytest.mark.parametrize("moment", ["in the step", "before the note"])
def test_a_recipe_that_was_killed_goes_on(tmp_path, monkeypatch, moment):
    path = chain(tmp_path)
    killed(path, monkeypatch, moment)
    assert (tmp_path / "obs.nc").exists() is (moment == "before the note")
    # An output that got its name after the step was noted is the step's own.
    assert list(recipe.run(path, progress=False)) == ([] if moment == "before the note" else ["2 observe"])
    assert recipe.status(path)["complete"] == "yes" and error_of(tmp_path / "obs.nc") == pytest.approx(0.1)


@pytest.mark.parametrize("moment", ["in the step", "before the note"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_recipe_that_was_killed_while_overwriting_goes_on(tmp_path, monkeypatch, moment, overwrite):
    recipe.run(chain(tmp_path), progress=False)
    path = chain(tmp_path, error=0.2)
    killed(path, monkeypatch, moment, overwrite=True)
    assert error_of(tmp_path / "obs.nc") == pytest.approx(0.1 if moment == "in the step" else 0.2)
    # Nobody knows whether the output is the old or the new one, so it is not done.
    assert recipe.status(path)["2 observe"].startswith("to do")
    assert list(recipe.run(path, overwrite=overwrite, progress=False)) == ["2 observe"]
    assert error_of(tmp_path / "obs.nc") == pytest.approx(0.2)


def test_a_recipe_whose_archive_in_an_object_store_is_unfinished_goes_on(tmp_path, monkeypatch):
    """Units of a step that was killed lie there under the final name, and are no finished output."""
    store = f"memory://{tmp_path.name}/l.zarr"
    path = write(tmp_path, generate=GENERATE | {"store": store})
    written, whole = [], ObjectArchive.write

    def die_at_the_second(archive, index, arrays):
        if written:
            raise Killed
        written.append(index)
        whole(archive, index, arrays)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ObjectArchive, "write", die_at_the_second)
        recipe.run(path, progress=False)
    assert located(store).exists() and recipe.status(path)["complete"].startswith("no")
    assert list(recipe.run(path, progress=False)) == ["1 generate"]
    assert recipe.status(path)["complete"] == "yes" and list(recipe.run(path, progress=False)) == []
    assert sdaxr.open_archive(store).sizes["trajectory"] == GENERATE["trajectories"]


def test_what_a_killed_run_replaced_does_not_pass_for_the_old_output(tmp_path, monkeypatch):
    recipe.run(chain(tmp_path), progress=False)
    killed(chain(tmp_path, error=0.2), monkeypatch, "before the note", overwrite=True)
    with pytest.raises(ArchiveError, match="may be older than the run of this step that was killed.*--overwrite"):
        recipe.run(chain(tmp_path), progress=False)
    recipe.run(chain(tmp_path), overwrite=True, progress=False)
    assert error_of(tmp_path / "obs.nc") == pytest.approx(0.1)


def test_an_archive_that_was_there_before_the_recipe_is_resumed(tmp_path, monkeypatch):
    options = {key: value for key, value in GENERATE.items() if key not in ("system", "store")}
    sdaxr.generate("lorenz63", tmp_path / "t.zarr", progress=False, **options)
    path = chain(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(recipe._State, "finish", lambda state, step: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            recipe.run(path, progress=False)
    assert list(recipe.run(path, progress=False)) == ["1 generate", "2 observe"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_unfinished_archive_of_other_parameters_is_replaced_when_asked(tmp_path, overwrite):
    options = {key: value for key, value in GENERATE.items() if key not in ("system", "store")}
    sdaxr.generate("lorenz63", tmp_path / "t.zarr", progress=False, **options | {"seed": 9})
    (tmp_path / "t.zarr").rename(tmp_path / "t.zarr.partial")
    path = chain(tmp_path)
    if overwrite:
        assert list(recipe.run(path, overwrite=True, progress=False)) == ["1 generate", "2 observe"]
    else:
        with pytest.raises(ArchiveError, match="seed: 9 -> 0"):
            recipe.run(path, progress=False)


def test_a_file_that_the_recipe_did_not_make_is_not_replaced(tmp_path):
    (tmp_path / "obs.nc").write_text("mine")
    with pytest.raises(ArchiveError, match="not made by this recipe"):
        recipe.run(chain(tmp_path), progress=False)
    assert (tmp_path / "obs.nc").read_text() == "mine" and not (tmp_path / "t.zarr").exists()


def test_a_training_is_checked_before_anything_runs_and_has_its_options(tmp_path):
    train = {"trajectories": "t.zarr", "store": "p.safetensors", "window": 3, "steps": 2, "device": "cpu"}
    train |= {"network": {"name": "convolutional", "width": 8}, "optimisation": {"batch": 2, "learning_rate": "1e-2"}}
    prior = recipe.run(write(tmp_path, generate=GENERATE, train=train), progress=False)["2 train"]
    assert prior.metadata["network"]["width"] == 8 and prior.metadata["optimisation"]["learning_rate"] == 0.01
    for change, message in [
        ({"network": "convolutionl"}, "step 2 .train.*Did you mean 'convolutional'"),
        ({"network": {"name": "mlp", "widht": 8}}, "Did you mean 'width'"),
        ({"optimisation": {"batch": 0}}, "batch=0 for Optimisation, expected a whole number of at least 1"),
        ({"statistics": {"normalise": "pont"}}, "Did you mean 'point'"),
    ]:
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, generate=GENERATE, train=train | change))


def test_a_system_assimilates_with_its_options(tmp_path):
    assimilate = {"observations": "obs.nc", "store": "p.zarr", "system": "lorenz63"}
    assimilate["method"] = {"name": "ffbs", "particles": 64}
    steps = {"generate": GENERATE, "observe": OBSERVE | {"store": "obs.nc"}}
    nothing = dict.fromkeys(("prior", "operator", "background", "batch", "sampler"))
    path = write(tmp_path, **steps, assimilate=assimilate | nothing | {"spin_up": 10, "members": 2})
    posterior = recipe.run(path, progress=False)["3 assimilate"]
    assert json.loads(posterior.attrs["sdaxr_options"])["spin_up"] == 10
    for change, message in [
        ({"spin": 10}, "Did you mean 'spin_up'"),
        ({"method": {"name": "4dvar", "first_guess": "g.zarr"}}, "there is no .*g.zarr"),
        ({"method": {"name": "ffbs", "particle": 64}}, "Did you mean 'particles'"),
        ({"method": "fbs"}, "Did you mean 'ffbs'"),
    ]:
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, **steps, assimilate=assimilate | change))


def test_a_system_cycles_with_its_options(tmp_path):
    cycle = {"observations": "obs.nc", "store": "p.zarr", "system": "lorenz63", "window": 3, "members": 3}
    steps = {"generate": GENERATE, "observe": OBSERVE | {"store": "obs.nc"}}
    path = write(tmp_path, **steps, cycle=cycle | {"method": {"name": "enkf", "inflation": 1.1}, "spin_up": 10})
    posterior = recipe.run(path, progress=False)["3 cycle"]
    assert '"spin_up": 10' in posterior.attrs["cycle_carry"] and posterior.attrs["method"] == "enkf"
    for change, message in [
        ({"spin": 10}, "Did you mean 'spin_up'"),
        ({"method": "ffbs"}, "carries no ensemble"),
        ({"carry": "lorenz63"}, "found carry= beside a system"),
    ]:
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, **steps, cycle=cycle | change))


def test_a_calibration_is_a_step_whose_truth_is_a_file_or_a_name(tmp_path):
    calibrate = {"operator": {"op": "select", "names": ["a"]}, "error": 1.0, "system": "lorenz63", "truths": 2}
    calibrate |= {"members": 2, "method": {"name": "ffbs", "particles": 64}, "steps": 5, "store": "c.nc"}
    path = write(tmp_path, generate=GENERATE, calibrate=calibrate | {"truth": "t.zarr", "truths": 2, "steps": 3})
    found = recipe.run(path, progress=False)["2 calibrate"]
    assert found.sizes["truth"] == 2 and recipe.run(path, progress=False) == {}
    path = write(
        tmp_path, calibrate=calibrate | {"truth": "lorenz63", "store": "d.nc", "system_options": {"noise": 0.1}}
    )
    found = recipe.run(path, progress=False)["1 calibrate"]
    assert '"noise": 0.1' in found.attrs["sdaxr_options"]
    for change, message in (
        ({"truth": "lorenz64"}, "there is no"),
        ({"system": "lorenz64"}, "unknown system 'lorenz64'"),
        ({"system_options": {"noisy": 1}}, "Did you mean 'noise'"),
        ({"method": "mmps"}, "method='mmps' needs a prior"),
        ({"sampler": {"steps": 2}}, "found sampler= beside a system"),
        ({"evry": 1}, "Did you mean 'every'"),
    ):
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, calibrate={"truth": "lorenz63"} | calibrate | change))


def test_a_cycle_is_carried_by_a_system_with_its_options(tmp_path):
    cycle = {"observations": "obs.nc", "store": "p.zarr", "prior": "lorenz63", "window": 3, "members": 2}
    cycle["sampler"] = {"steps": 3}
    steps = {"generate": GENERATE, "observe": OBSERVE | {"store": "obs.nc"}}
    path = write(tmp_path, **steps, cycle=cycle | {"carry": "lorenz63", "noise": 0, "device": "cpu"})
    posterior = recipe.run(path, progress=False)["3 cycle"]
    assert posterior.sizes["time"] == 6 and '"noise": 0' in posterior.attrs["cycle_carry"]
    for change, message in [
        ({"sampler": {"name": "dpm++", "step": 3}}, "Did you mean 'steps'"),
        ({"carry": "lorenz63", "nois": 0}, "Did you mean 'noise'"),
        ({"carry": "lorentz63"}, "found the carry 'lorentz63'.*Did you mean 'lorenz63'.*safetensors"),
        ({"noise": 0}, "found the parameter 'noise'"),
        ({"background": "b.nc"}, "there is no .*b.nc"),
    ]:
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, **steps, cycle=cycle | change))


def test_a_mask_is_a_file_or_parameters(tmp_path):
    flow = {"system": "lorenz96", "store": "t.zarr", "trajectories": 3, "steps": 6, "split": [0.4, 0.3, 0.3]}
    observe = OBSERVE | {"store": "obs.nc", "where": {"coverage": 0.25, "fixed": True}}
    found = recipe.run(write(tmp_path, generate=flow, observe=observe), progress=False)["2 observe"]
    truth = sdaxr.open_archive(tmp_path / "t.zarr").isel(trajectory=-1)
    options = {"every": 2, "error": 0.1}
    expected = sdaxr.observe(truth, sdaxr.operators.identity(), where=observe["where"], **options)
    xr.testing.assert_identical(found, expected)

    mask = sdaxr.strided_mask(truth, 2)
    save(mask.to_dataset(), tmp_path / "mask.nc")
    of_file = observe | {"store": "b.nc", "where": "mask.nc"}
    found = recipe.run(write(tmp_path, generate=flow, observe=of_file), progress=False)["2 observe"]
    xr.testing.assert_identical(found, sdaxr.observe(truth, sdaxr.operators.identity(), where=mask, **options))
    for where, message in [({"covrage": 0.25}, "step 2 .observe.*'coverage'"), ("none.nc", "there is no .*none.nc")]:
        with pytest.raises(OptionError, match=message):
            recipe.read(write(tmp_path, generate=flow, observe=observe | {"where": where}))


def test_a_command_may_come_twice_in_a_list(tmp_path):
    path = tmp_path / "recipe.yaml"
    both = [{"observe": OBSERVE | {"store": f"{name}.nc"}} for name in "ab"]
    path.write_text(yaml.safe_dump([{"generate": GENERATE}, *both]))
    assert list(recipe.run(path, progress=False)) == ["1 generate", "2 observe", "3 observe"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"generat": GENERATE}, "Did you mean 'generate'"),
        ({"generate": GENERATE, "observe": OBSERVE | {"store": "o.nc", "evry": 2}}, "step 2 .observe.*'every'"),
        ({"generate": GENERATE | {"sead": 2}}, "Did you mean 'seed'"),
        ({"generate": GENERATE | {"nois": 2}}, "Did you mean 'noise'"),
        ({"generate": GENERATE | {"system": "lorenz36"}}, "lorenz63"),
        ({"generate": GENERATE | {"steps": "many"}}, "expected a whole number"),
        ({"generate": GENERATE | {"seed": float("inf")}}, "step 1 .generate.*found seed: inf, expected a whole number"),
        ({"generate": GENERATE | {"seed": -1}}, "step 1 .generate.*found seed=-1"),
        ({"generate": GENERATE | {"steps": 2.5}}, "expected a whole number"),
        ({"generate": {"system": "lorenz63", "store": "t.zarr"}}, "missing trajectories, steps"),
        ({"observe": OBSERVE | {"store": "o.nc"}}, "no earlier step makes it"),
        ({"generate": GENERATE, "observe": OBSERVE | {"store": "t.zarr"}}, "output of an earlier step"),
        ({"generate": GENERATE, "observe": OBSERVE | {"store": "o.nc", "operator": {"op": "coarse"}}}, "coarsen"),
        ({"generate": GENERATE, "observe": 4}, "as a mapping"),
        ({"generate": GENERATE, "observe": OBSERVE | {"store": "o.nc", "where": [1]}}, "step 2 .*found where: .1."),
        *(
            (
                {"generate": GENERATE, "observe": OBSERVE | {"store": "o.nc"}, name: LATER[name] | change},
                f"step 3 .*{message}",
            )
            for name, change, message in [
                ("assimilate", {"observations": [5]}, "found observations: .5., expected a text or a list"),
                ("assimilate", {"method": {"name": "4dvar", "first_guess": 5}}, "found method.first_guess: 5"),
                ("assimilate", {"method": 5}, "found method: 5"),
                ("assimilate", {"method": {"name": [1]}}, "for the method, expected one of"),
                ("assimilate", {"operator": 5}, "operator"),
                ("assimilate", {"method": "sda"}, "needs a prior, found a system"),
                ("forecast", {"model": [1]}, "found model: .1., expected a text"),
                ("forecast", {"model": {"a": 1}}, "found model: .'a': 1., expected a text"),
                ("cycle", {"carry": [1]}, "found carry: .1., expected a text"),
                ("cycle", {"sampler": {"step": 4}}, "Did you mean 'steps'"),
            ]
        ),
    ],
)
def test_the_whole_recipe_is_checked_before_anything_runs(tmp_path, content, message):
    with pytest.raises(OptionError, match=message):
        recipe.run(write(tmp_path, **content), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_how_observations_are_read_is_checked_before_anything_runs(tmp_path):
    (tmp_path / "stations.csv").write_text("time,lat,lon,t2m [K]\n2019-03-01,51,0,280\n")
    path = tmp_path / "recipe.yaml"
    step = "assimilate: {observations: stations.csv, system: lorenz63, store: post.zarr, reading: {%s: 1.0}}"
    path.write_text(step % "error")
    with pytest.raises(OptionError, match="reading has the option 'error'"):
        recipe.read(path)
    path.write_text(step % "errors")
    assert recipe.read(path)[0].inputs == (tmp_path / "stations.csv",)


def test_an_unknown_prior_is_refused_before_anything_runs(tmp_path):
    assimilate = {"observations": "obs.nc", "prior": "lorentz63", "store": "post.zarr"}
    path = write(tmp_path, generate=GENERATE, observe=OBSERVE | {"store": "obs.nc"}, assimilate=assimilate)
    with pytest.raises(OptionError, match="step 3 .assimilate.*lorentz63"):
        recipe.run(path, progress=False)
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize(
    ("model", "wrong", "right"), [("lorenz63", "nois", "noise"), ("prior.safetensors", "samper", "sampler")]
)
def test_options_of_a_forecast_are_those_of_its_model(tmp_path, model, wrong, right):
    (tmp_path / "prior.safetensors").touch()
    step = {"ensemble": "t.zarr", "model": model, "store": "later.zarr", "steps": 4}
    with pytest.raises(OptionError, match=f"Did you mean '{right}'"):
        recipe.read(write(tmp_path, generate=GENERATE, forecast=step | {wrong: 0}))
    assert recipe.read(write(tmp_path, generate=GENERATE, forecast=step | {right: 0 if right == "noise" else "dpm++"}))


def test_a_model_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    step = {"ensemble": "t.zarr", "model": "lorentz63", "store": "later.zarr", "steps": 4}
    with pytest.raises(OptionError, match="found the model 'lorentz63'.*Did you mean 'lorenz63'"):
        recipe.read(write(tmp_path, generate=GENERATE, forecast=step))


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("observe: {a: 1}\nobserve: {a: 2}\n")
    with pytest.raises(OptionError, match="'observe' twice"):
        recipe.read(path)


@pytest.mark.parametrize("text", ["", "- 1", "just text", "a: [1"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match="recipe.yaml"):
        recipe.read(path)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    path = tmp_path / "recipe.yaml"
    observe = yaml.safe_dump({k: v for k, v in OBSERVE.items() if k != "error"}, default_flow_style=True).strip()
    path.write_text(f"generate: {json.dumps(GENERATE)}\nobserve: {observe[:-1]}, store: o.nc, error: 1e-3}}\n")
    assert recipe.read(path)[1].values["error"] == 1e-3


def test_a_broken_state_file_says_what_to_do(tmp_path):
    path = chain(tmp_path)
    path.with_suffix(".state.json").write_text("{")
    with pytest.raises(ArchiveError, match="remove it"):
        recipe.run(path, progress=False)


def test_skipped_steps_are_told(tmp_path, caplog):
    path = chain(tmp_path)
    recipe.run(path, progress=False)
    with caplog.at_level(logging.INFO, logger="sdaxr"):
        recipe.run(path, progress=False)
    assert "2 observe: done, skipped" in caplog.text
