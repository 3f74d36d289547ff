"""The command line: flags are the functions' parameters, errors are one line, results are the functions'."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner
from grids import sphere

import sdaxr
from sdaxr.archives.creation import create_archive
from sdaxr.archives.stores import save
from sdaxr.commands import cli, steps, texts

# Flags of a command that are no parameter of its step, and parameters that have no flag.
NOT_A_PARAMETER = {name: {"option"} for name in ("generate", "assimilate", "cycle", "forecast")}
NOT_A_PARAMETER["calibrate"] = set()
for name in ("assimilate", "cycle", "forecast", "calibrate"):
    NOT_A_PARAMETER[name] |= {"method_option", "sampler_option"}
NOT_A_PARAMETER["train"] = {"network_option"}
NO_FLAG = {name: {"progress", "times"} for name in ("report", "assimilate", "cycle")}


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


def one_line(*arguments: object) -> str:
    """What a bad command says: exit code 2, nothing on standard output, one line on standard error."""
    result = run(*arguments, code=2)
    assert result.stdout == "" and result.stderr.count("\n") == 1 and result.stderr.startswith("sdaxr: ")
    return result.stderr


@pytest.mark.parametrize("name", steps.STEPS)
def test_flags_are_the_parameters_of_the_function(name):
    accepted = steps.parameters(name)
    flags = {p.name for p in cli.main.commands[name].params} - {"quiet"} - NOT_A_PARAMETER.get(name, set())
    assert flags - set(accepted) == set()
    assert set(accepted) - flags <= NO_FLAG.get(name, {"progress"})


@pytest.mark.parametrize("name", steps.STEPS)
def test_required_parameters_are_required_flags(name):
    accepted = steps.parameters(name)
    for parameter in cli.main.commands[name].params:
        if parameter.name in accepted:
            needed = accepted[parameter.name].default is inspect.Parameter.empty
            assert parameter.required == needed, parameter.name


@pytest.mark.parametrize("name", steps.STEPS)
def test_what_no_flag_says_is_left_to_the_function(name, monkeypatch):
    """Only what is required, and that no bar is shown, reaches the function: its own defaults stand."""
    given = {}
    monkeypatch.setitem(steps.STEPS, name, lambda **values: given.update(values) or xr.Dataset())
    monkeypatch.setattr("sdaxr.commands.texts.calibration", str)  # which an empty result does not have
    required = {p.name: p for p in cli.main.commands[name].params if p.required}
    texts = {"trajectories": 3, "steps": 4, "error": 0.5} if name != "train" else {"window": 8}
    words = []
    for key, parameter in required.items():
        flag = () if isinstance(parameter, click.Argument) else (parameter.opts[0],)
        words += [*flag, texts.get(key, "x")]
    run(name, *words, "--quiet")
    assert set(given) - {"progress"} == set(required)
    assert given.get("progress", False) is False


@pytest.mark.parametrize("name", cli.main.commands)
def test_every_command_is_explained_and_can_be_quiet(name):
    command = cli.main.commands[name]
    assert "--quiet" in run(name, "--help").output
    assert command.help and all(p.help for p in command.params if isinstance(p, click.Option))


def test_unknown_names_offer_the_nearest():
    assert "Did you mean 'generate'" in one_line("genrate")
    assert "--every" in one_line("observe", "truth.zarr", "--evry", 4)
    assert "Did you mean 'quasigeostrophic'" in one_line("info", "quasigeostropic")


def test_an_unknown_system_or_option_offers_the_nearest(tmp_path):
    common = ("--store", tmp_path / "a.zarr", "--trajectories", 2, "--steps", 4)
    assert "lorenz63" in one_line("generate", "lorenz36", *common)
    assert "noise" in one_line("generate", "lorenz63", *common, "--option", "nose=1")
    assert "key=value" in one_line("generate", "lorenz63", *common, "--option", "noise")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["store=y.zarr", "seed=4", "name=x", "progress=true", "system=lorenz96"])
def test_an_option_of_the_system_replaces_no_parameter(tmp_path, option):
    flags = ("--store", tmp_path / "a.zarr", "--trajectories", 2, "--steps", 4, "--option", option)
    assert option.partition("=")[0] in one_line("generate", "lorenz63", *flags)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    missing = tmp_path / "missing.zarr"
    assert "missing.zarr" in one_line("info", missing)
    assert "missing.zarr" in one_line("train", missing, "--store", tmp_path / "p.safetensors")
    assert "missing.yaml" in one_line("run", tmp_path / "missing.yaml")


def test_an_operator_that_is_not_json_is_refused(tmp_path, trajectories):
    truth = tmp_path / "truth.nc"
    trajectories.to_netcdf(truth)
    arguments = ("observe", truth, "--store", tmp_path / "obs.nc", "--error", 0.1, "--trajectory", 0)
    assert "not JSON" in one_line(*arguments, "--operator", "coarsen(2)")
    assert "coarsen" in one_line(*arguments, "--operator", '{"op": "coarse", "factor": 2}')
    assert "expected an index of the 10" in one_line(*arguments[:-1], 10, "--operator", '{"op": "identity"}')
    assert ".zarr or .nc" in one_line(*arguments, "--operator", '{"op": "identity"}', "--store", "obs.csv")


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_observe_is_the_function(tmp_path, trajectories, suffix):
    truth, store = tmp_path / "truth.nc", tmp_path / f"obs.{suffix}"
    trajectories.to_netcdf(truth)
    flags = ("--operator", '{"op": "coarsen", "factor": 2}', "--every", 3, "--error", 0.1, "--seed", 5)
    run("observe", truth, *flags, "--trajectory", -1, "--store", store, "--quiet")
    operator = sdaxr.operators.coarsen(2)
    expected = sdaxr.observe(trajectories.isel(trajectory=-1), operator, every=3, error=0.1, seed=5)
    with sdaxr.open_archive(store) as written:
        xr.testing.assert_identical(written.load(), expected)
    assert "exists" in one_line("observe", truth, *flags, "--trajectory", -1, "--store", store)
    run("observe", truth, *flags, "--trajectory", 0, "--store", store, "--overwrite")
    with sdaxr.open_archive(store) as written:
        assert not np.allclose(written["u"], expected["u"])


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_a_mask_is_a_file_or_parameters(tmp_path, trajectories, suffix):
    truth, store, file = tmp_path / "truth.nc", tmp_path / "obs.nc", tmp_path / f"mask.{suffix}"
    trajectories.to_netcdf(truth)
    mask = sdaxr.random_mask(trajectories, 0.25, seed=4)
    save(mask.to_dataset(), file)
    flags = ("--operator", '{"op": "identity"}', "--error", 0.1, "--trajectory", 0, "--store", store, "--overwrite")
    for text, where in [(file, mask), ('{"stride": 4, "shift": 1}', {"stride": 4, "shift": 1})]:
        run("observe", truth, *flags, "--where", text, "--quiet")
        expected = sdaxr.observe(trajectories.isel(trajectory=0), sdaxr.operators.identity(), error=0.1, where=where)
        with sdaxr.open_archive(store) as written:
            xr.testing.assert_identical(written.load(), expected)
    assert "expected one mask" in one_line("observe", truth, *flags, "--where", truth)
    assert "parameter 'shft'" in one_line("observe", truth, *flags, "--where", '{"stride": 4, "shft": 1}')
    assert "nothing at" in one_line("observe", truth, *flags, "--where", tmp_path / "none.nc")


def test_messages_go_to_standard_error_unless_quiet(tmp_path, trajectories):
    truth = tmp_path / "truth.nc"
    trajectories.to_netcdf(truth)
    arguments = ("observe", truth, "--operator", '{"op": "identity"}', "--error", 0.1, "--trajectory", 0, "--overwrite")
    assert "wrote" in run(*arguments, "--store", tmp_path / "a.nc").stderr
    quiet = run(*arguments, "--store", tmp_path / "a.nc", "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_generate_is_the_function_and_takes_options(tmp_path):
    common = ("generate", "lorenz63", "--trajectories", 3, "--steps", 5, "--seed", 1, "--split", 0.4, 0.3, 0.3)
    run(*common, "--store", tmp_path / "a.zarr", "--option", "noise=0", "--quiet")
    expected = sdaxr.generate(
        "lorenz63",
        tmp_path / "b.zarr",
        trajectories=3,
        steps=5,
        seed=1,
        split=(0.4, 0.3, 0.3),
        noise=0,
        progress=False,
    )
    with sdaxr.open_archive(tmp_path / "a.zarr") as written:
        xr.testing.assert_equal(written.load(), expected.load())


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Truth, prior and observations of a small Lorenz chain, made by functions."""
    folder = tmp_path_factory.mktemp("chain")
    truth = sdaxr.generate("lorenz63", folder / "truth.zarr", trajectories=8, steps=24, progress=False)
    network = {"width": 8, "blocks": 1}
    sdaxr.train(truth, folder / "prior.safetensors", window=8, steps=4, network=network, device="cpu", progress=False)
    observations = sdaxr.observe(truth.isel(trajectory=-1), sdaxr.operators.select("a"), every=4, error=0.5)
    save(observations, folder / "obs.nc")
    return folder


def test_train_is_the_function(chain, tmp_path):
    flags = (
        "--window",
        8,
        "--steps",
        4,
        "--device",
        "cpu",
        *("--network-option", "width=8", "--network-option", "blocks=1"),
    )
    run("train", chain / "truth.zarr", "--store", tmp_path / "p.safetensors", *flags, "--quiet")
    assert sdaxr.open_prior(tmp_path / "p.safetensors").sha256 == sdaxr.open_prior(chain / "prior.safetensors").sha256


def test_options_of_the_training_are_keys_and_values(chain, tmp_path):
    command = ("train", chain / "truth.zarr", "--store", tmp_path / "p.safetensors", "--device", "cpu", "--quiet")
    command += ("--window", 8, "--steps", 2, "--network-option", "width=8", "--statistics", "cycles=[]")
    run(*command, "--optimisation", "learning-rate=1e-2", "--optimisation", "levels=[0.01, 10]")
    prior = sdaxr.open_prior(tmp_path / "p.safetensors")
    assert prior.metadata["optimisation"]["learning_rate"] == 0.01 and prior.network.levels == (0.01, 10.0)
    assert prior.metadata["network"]["width"] == 8
    assert "unknown option of Optimisation: 'bacth'" in one_line(*command, "--optimisation", "bacth=4")
    assert "found --network-option 'width', expected key=value" in one_line(*command, "--network-option", "width")


def test_assimilate_verify_forecast_and_denoise_are_the_functions(chain, tmp_path):
    prior, truth = sdaxr.open_prior(chain / "prior.safetensors"), sdaxr.open_archive(chain / "truth.zarr")
    settings = ("--prior", chain / "prior.safetensors", "--device", "cpu", "--quiet", "--seed", 3)
    options = {"seed": 3, "device": "cpu", "progress": False}
    three = ("--sampler-option", "steps=3", "--method", "mmps", "--method-option", "iterations=2")

    run("assimilate", chain / "obs.nc", *settings, "--members", 2, *three, "--store", tmp_path / "post.zarr")
    observations = sdaxr.open_archive(chain / "obs.nc")
    posterior = sdaxr.assimilate(
        observations, prior, method=sdaxr.methods.MMPS(iterations=2), sampler={"steps": 3}, members=2, **options
    )
    written = sdaxr.open_archive(tmp_path / "post.zarr")
    xr.testing.assert_equal(written.drop_vars("status").load(), posterior)

    table = run("verify", tmp_path / "post.zarr", chain / "truth.zarr", "--trajectory", -1).stdout
    scores = sdaxr.verify(posterior, truth.isel(trajectory=-1))
    assert table.strip() == texts.table(scores).strip() and "rmse" in table

    forecast = ("forecast", tmp_path / "post.zarr", "--model", "lorenz63", "--steps", 4, "--seed", 3, "--quiet")
    run(*forecast, "--store", tmp_path / "later.zarr", "--option", "noise=0")
    later = sdaxr.forecast(posterior, "lorenz63", steps=4, seed=3, noise=0, progress=False)
    written = sdaxr.open_archive(tmp_path / "later.zarr")
    xr.testing.assert_equal(written.drop_vars("status").load(), later)

    noisy = ("denoise", chain / "truth.zarr", *settings, "--trajectory", -1, "--error", 0.5, "--steps", 3)
    run(*noisy, "--store", tmp_path / "clean.nc")
    clean = sdaxr.denoise(truth.isel(trajectory=-1), prior, error=0.5, steps=3, **options)
    with sdaxr.open_archive(tmp_path / "clean.nc") as written:
        xr.testing.assert_equal(written.load(), clean)


def test_calibrate_is_the_function_and_prints_the_verdict(tmp_path, monkeypatch):
    operator = '{"op": "select", "names": ["x1"]}'
    command = ("calibrate", "linear", "--system", "linear", "--method", "kalman", "--operator", operator)
    command += ("--error", 0.5, "--every", 2, "--steps", 4, "--truths", 3, "--members", 3, "--seed", 2)
    command += ("--levels", 0.5, "--levels", 0.9, "--quantities", "state", "--points", '{"time": [0, 3]}')
    command += ("--system-option", "noise=[[0.1,0],[0,0.1]]", "--quiet", "--store")
    said = run(*command, tmp_path / "c.nc").stdout
    system = sdaxr.open_system("linear", noise=((0.1, 0.0), (0.0, 0.1)))
    expected = sdaxr.calibrate(
        system, sdaxr.operators.select("x1"), system=system, method="kalman", error=0.5, every=2, steps=4, truths=3,
        members=3, seed=2, levels=[0.5, 0.9], quantities=["state"], points={"time": [0, 3]}, progress=False,
    )  # fmt: skip
    found = sdaxr.open_archive(tmp_path / "c.nc").load()
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs())
    assert said.strip() == texts.calibration(expected) and "verdict: " in said
    run("plot", tmp_path / "c.nc", "--path", tmp_path / "c.png", "--quiet")
    assert (tmp_path / "c.png").stat().st_size > 10_000 and "calibration" in run("info", tmp_path / "c.nc").stdout
    assert "found system_options=" in one_line(
        "calibrate", "prior", "--prior", "lorenz63", *command[6:], tmp_path / "d.nc"
    )


def test_cycle_is_the_function(chain, tmp_path):
    cycle = ("cycle", chain / "obs.nc", "--prior", chain / "prior.safetensors", "--seed", 3, "--quiet")
    settings = ("--window", 12, "--members", 2, "--sampler-option", "steps=3", "--inflation", 1.1, "--device", "cpu")
    carry = ("--carry", "lorenz63", "--option", "noise=0")
    run(*cycle, *settings, *carry, "--store", tmp_path / "cycle.zarr")
    expected = sdaxr.cycle(
        sdaxr.open_archive(chain / "obs.nc"), chain / "prior.safetensors", seed=3, window=12, members=2,
        sampler={"steps": 3}, inflation=1.1, carry=sdaxr.open_system("lorenz63", noise=0), device="cpu", progress=False,
    )  # fmt: skip
    xr.testing.assert_identical(sdaxr.open_archive(tmp_path / "cycle.zarr").load(), expected)

    other = (*cycle, "--store", tmp_path / "other.nc")
    assert "Did you mean 'lorenz63'" in one_line(*other, "--carry", "lorentz63")
    assert "parameter 'noise'" in one_line(*other, "--option", "noise=0")
    assert "nois" in one_line(*other, "--carry", "lorenz63", "--option", "nois=0")


def test_assimilate_by_a_system_is_the_function(chain, tmp_path):
    settings = ("assimilate", chain / "obs.nc", "--members", 2, "--seed", 3, "--quiet")
    system = ("--system", "lorenz63", "--option", "spin_up=10", "--option", "noise=2")
    background = xr.Dataset({"b": ((), 1.0, {"units": "1"}), "b_error": 2.0})
    save(background, tmp_path / "background.nc")
    filtered = ("--method", "ffbs", "--method-option", "particles=500", "--background", tmp_path / "background.nc")
    run(*settings, *system, *filtered, "--store", tmp_path / "ffbs.zarr")
    model = sdaxr.open_system("lorenz63", spin_up=10, noise=2)
    observations = sdaxr.open_archive(chain / "obs.nc")
    options = {"system": model, "members": 2, "seed": 3, "progress": False}
    expected = sdaxr.assimilate(
        observations, method=sdaxr.methods.FFBS(particles=500), background=background, **options
    )
    written = sdaxr.open_archive(tmp_path / "ffbs.zarr")
    xr.testing.assert_equal(written.drop_vars("status").load(), expected)

    run(
        *settings, *system, "--method", "4dvar", "--method-option", f"first_guess={tmp_path / 'ffbs.zarr'}",
        "--store", tmp_path / "4dvar.zarr",
    )  # fmt: skip
    refined = sdaxr.assimilate(observations, method=sdaxr.methods.FourDVar(first_guess=expected), **options)
    np.testing.assert_array_equal(sdaxr.open_archive(tmp_path / "4dvar.zarr").a, refined.a)

    other = tmp_path / "other.zarr"
    assert "needs a prior" in one_line(*settings, "--store", other)
    assert "nois" in one_line(*settings, "--store", other, "--system", "lorenz63", "--option", "nois=2")
    unused = one_line(*settings, "--store", other, "--prior", chain / "prior.safetensors", "--option", "noise=2")
    assert "found the parameter 'noise'" in unused


def test_ensemble_methods_and_their_cycle_are_the_functions(tmp_path):
    truth = sdaxr.generate("lorenz96", tmp_path / "t.zarr", trajectories=1, steps=9, split=(1, 0, 0), progress=False)
    save(truth.isel(trajectory=0).sda.observe(sdaxr.operators.subsample(2), error=1.0), tmp_path / "obs.nc")
    shared = ("--system", "lorenz96", "--option", "spin_up=50", "--members", 4, "--seed", 3, "--quiet")
    method = ("--method", "letkf", "--method-option", "localisation=4", "--method-option", "inflation=1.05")
    run("assimilate", tmp_path / "obs.nc", *shared, *method, "--store", tmp_path / "p.zarr")
    run("cycle", tmp_path / "obs.nc", *shared, *method, "--window", 4, "--store", tmp_path / "c.zarr")
    system, observations = sdaxr.open_system("lorenz96", spin_up=50), sdaxr.open_archive(tmp_path / "obs.nc")
    options = {"system": system, "members": 4, "seed": 3, "progress": False}
    options["method"] = sdaxr.methods.LETKF(localisation=4, inflation=1.05)
    for written, expected in [
        ("p.zarr", observations.sda.assimilate(**options)), ("c.zarr", observations.sda.cycle(window=4, **options)),
    ]:  # fmt: skip
        found = sdaxr.open_archive(tmp_path / written)
        xr.testing.assert_equal(found.drop_vars("status", errors="ignore").load(), expected)
        assert found.attrs["members_distribution"] == "filtering"
    inner = ("--method", "enks", "--method-option", 'filter={"name":"letkf","localisation":4}')
    run("assimilate", tmp_path / "obs.nc", *shared, *inner, "--store", tmp_path / "s.zarr")
    assert sdaxr.open_archive(tmp_path / "s.zarr").attrs["members_distribution"] == "smoothing"
    again = ("cycle", tmp_path / "obs.nc", *shared, "--store", tmp_path / "o.zarr", "--background", tmp_path / "p.zarr")
    assert "the background has 9 times, expected one" in one_line(*again)
    assert "parameter 'nois'" in one_line("cycle", tmp_path / "obs.nc", "--prior", "lorenz63", "--option", "nois=1",
                                          "--store", tmp_path / "o.zarr")  # fmt: skip


def test_plot_and_animate_write_pictures(chain, tmp_path):
    truth = ("--truth", chain / "truth.zarr", "--trajectory", -1)
    run("plot", chain / "obs.nc", *truth, "--path", tmp_path / "p.png")
    run("animate", chain / "truth.zarr", "--trajectory", 0, "--path", tmp_path / "p.gif", "--fps", 4)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "p.gif").read_bytes()[:3] == b"GIF"


def test_info_knows_each_kind(chain):
    facts = run("info", chain / "prior.safetensors").stdout
    assert "kind" in facts and "network.width" in facts and "optimisation.learning_rate" in facts
    assert "q on 64 x 64" in run("info", "quasigeostrophic").stdout
    assert "observations" in run("info", chain / "obs.nc").stdout
    text = run("info", chain / "truth.zarr").stdout
    assert "trajectories" in text and "train 6, valid 1, test 1" in text and "lorenz63" in text


def test_an_unfinished_archive_is_not_trained_on(tmp_path, trajectories):
    template = trajectories.isel(trajectory=slice(3)).drop_vars("status")
    archive = create_archive(tmp_path / "t.zarr", template, "trajectory", {"seed": 0})
    archive.write(0, {name: variable[0].values for name, variable in template.data_vars.items()})
    assert "1 of 3 units" in one_line("train", tmp_path / "t.zarr", "--store", tmp_path / "p.safetensors")
    assert "1 of 3 units" in run("info", tmp_path / "t.zarr").stdout


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(steps.STEPS, "observe", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        run("observe", "t.zarr", "--operator", "{}", "--error", 1, "--store", "o.nc")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "sdaxr: interrupted; run the same command again to resume"),
        (PermissionError(13, "Permission denied", "o.nc"), 2, "sdaxr: o.nc: Permission denied"),
        (OSError("the disk is gone"), 2, "sdaxr: input or output: the disk is gone"),
        (sdaxr.schema.DataError("of two\nlines"), 2, "sdaxr: of two lines"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_goes_wrong_is_one_line(monkeypatch, error, code, message):
    def fail(**_):
        raise error

    monkeypatch.setitem(steps.STEPS, "observe", fail)
    result = run("observe", "t.zarr", "--operator", "{}", "--error", 1, "--store", "o.nc", code=code)
    assert (result.stdout, result.stderr.strip()) == ("", message)


def test_no_command_at_all_shows_the_help():
    result = run(code=2)
    assert "Usage:" in result.stderr and "assimilate" in result.stderr


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "sdaxr.commands", "priors"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
    assert [line.split(":")[0] for line in text.splitlines()] == list(sdaxr.priors())


def test_options_that_cannot_be_read(tmp_path):
    train = ("train", tmp_path / "t.zarr", "--store", tmp_path / "p.safetensors")
    observe = ("observe", "t.zarr", "--operator", "{}", "--error", 1, "--store", "o.nc")
    assert "'{time' is not JSON" in one_line(*observe, "--correlation", "{time")
    assert "found 'speed', expected name=operator" in one_line(*train, "--augment", "speed")


def test_a_recipe_is_run_and_its_scores_are_said(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    generate = {"system": "lorenz63", "store": "t.zarr", "trajectories": 3, "steps": 6, "split": [0.4, 0.3, 0.3]}
    observe = {"truth": "t.zarr", "trajectory": -1, "operator": {"op": "identity"}, "error": 0.5, "store": "obs.nc"}
    filtered = {"observations": "obs.nc", "system": "lorenz63", "store": "p.zarr"}
    filtered["method"] = {"name": "ffbs", "particles": 50}
    recipe.write_text(
        yaml.safe_dump(
            {
                "generate": generate,
                "observe": observe,
                "assimilate": filtered | {"members": 2},
                "verify": {"posterior": "p.zarr", "truth": "t.zarr", "trajectory": -1, "store": "scores.nc"},
            },
            sort_keys=False,
        )
    )
    assert "to do" in run("info", recipe).stdout
    said = run("run", recipe, "--quiet").stdout
    with sdaxr.open_archive(tmp_path / "scores.nc") as scores:
        assert said.strip() == texts.table(scores).strip() and "rmse" in said
    assert "to do" not in run("info", recipe).stdout
    assert run("run", recipe, "--quiet").stdout == ""


def test_networks_are_told_apart_by_the_names_of_their_files(chain, tmp_path):
    (tmp_path / "again").mkdir()
    shutil.copy(chain / "obs.nc", tmp_path / "again" / "obs.nc")
    shutil.copy(chain / "obs.nc", tmp_path / "other.nc")
    settings = (
        "--prior",
        chain / "prior.safetensors",
        "--device",
        "cpu",
        "--members",
        1,
        "--quiet",
        "--sampler-option",
        "steps=3",
    )
    store = ("--store", tmp_path / "p.zarr")
    same = one_line("assimilate", chain / "obs.nc", tmp_path / "again" / "obs.nc", *settings, *store)
    assert "found several networks of the same file name" in same
    run("assimilate", chain / "obs.nc", tmp_path / "other.nc", *settings, *store)
    assert sdaxr.open_archive(tmp_path / "p.zarr").attrs["networks"] == ["obs", "other"]


def test_a_table_of_stations_is_assimilated_and_verified(tmp_path):
    fields = sphere(times=12)
    fields["t2m"] = fields.t2m.astype("float32")
    save(fields, tmp_path / "era.nc")
    prior = ("--store", tmp_path / "prior.safetensors", "--window", 3, "--steps", 2, "--quiet", "--device", "cpu")
    prior += ("--network-option", "widths=[8]", "--network-option", "blocks=1", "--optimisation", "batch=4")
    run("train", tmp_path / "era.nc", *prior)
    rows = [f"2019-03-01T{hour:02d}:00,{lat},{lon},280.5\n" for hour in range(4) for lat, lon in ((50, 0), (41, 7))]
    (tmp_path / "stations.csv").write_text("time,latitude,longitude,t2m\n" + "".join(rows))
    reading = ("--reading", 'units={"t2m": "K"}', "--reading", "errors=0.5")
    drawing = ("--prior", tmp_path / "prior.safetensors", "--members", 2, "--device", "cpu", "--quiet")
    few = ("--sampler-option", "steps=2", "--sampler-option", "mixing=false", "--store", tmp_path / "post.zarr")
    assert "'t2m' has no units" in one_line("assimilate", tmp_path / "stations.csv", *drawing, *few)
    run("assimilate", tmp_path / "stations.csv", *reading, *drawing, *few)
    posterior = sdaxr.open_archive(tmp_path / "post.zarr")
    assert posterior.attrs["observations_used"] == [8] and posterior.sizes["time"] == 4
    table = run("verify", tmp_path / "post.zarr", tmp_path / "stations.csv", *reading).stdout
    assert "rmse_corrected" in table and "t2m [K]" in table
