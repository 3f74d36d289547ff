"""What installs, what imports, and what they cost."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import sdaxr
from sdaxr.commands import cli, recipe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "dask": "dask-core",
    "cf-xarray": "cf_xarray",
}
HEAVY = ("torch", "jax", "matplotlib", "cartopy", "distributed", "scipy", "scores", "click", "netCDF4")


def split_requirement(text: str) -> tuple[str, str]:
    """Name without extras in lower case, and its version range."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?(.*)", text)
    assert match, text
    return match[1].lower(), match[2].replace(" ", "")


def requirements() -> list[str]:
    return PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_conda_environment_has_the_same_packages_and_ranges():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str) and entry != "pip"]
    pip = [name for entry in environment["dependencies"] if isinstance(entry, dict) for name in entry["pip"]]
    expected = {}
    for requirement in requirements():
        name, versions = split_requirement(requirement)
        expected[CONDA_NAMES.get(name, name)] = versions
    expected["python"] = PROJECT["requires-python"]
    assert dict(map(split_requirement, conda + pip)) == expected


def test_constraints_pin_every_requirement_within_its_range():
    packaging = pytest.importorskip("packaging.specifiers")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in requirements():
        name, versions = split_requirement(requirement)
        assert name in pins, f"constraints.txt does not pin {name}"
        assert packaging.SpecifierSet(versions).contains(pins[name]), f"{name}=={pins[name]} is not in {versions}"


def test_version_is_the_project_version():
    assert sdaxr.__version__ == PROJECT["version"]


@pytest.mark.parametrize("marker", ["demo", "test"])
def test_readme_commands_stand_below_their_markers(marker):
    readme = (ROOT / "README.md").read_text()
    command = re.search(rf"<!-- the {marker} command -->\n```sh\n(python -m venv \.venv && .*)\n```", readme)
    assert command and "-c constraints.txt" in command[1]


def test_import_is_light():
    code = "import sys, xarray; before = set(sys.modules); import sdaxr; print(*(set(sys.modules) - before))"
    assert set(python(code).split()) & set(HEAVY) == set()


def test_import_takes_at_most_300_ms_on_top_of_xarray():
    code = "import time, xarray; t = time.perf_counter(); import sdaxr; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", [name for name in sdaxr.__all__ if name != "__version__"])
def test_every_name_of_the_table_of_contents_loads(name):
    assert name in dir(sdaxr)
    value = getattr(sdaxr, name)
    assert value.__doc__ or value.__file__


@pytest.mark.parametrize("name", ["generate", "assimilate", "plot", "verify"])
def test_a_function_is_not_hidden_by_the_module_that_defines_it(name):
    home = getattr(sdaxr, name).__module__
    assert python(f"import {home}, sdaxr; print(callable(sdaxr.{name}))") == "True\n"


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'assimilate'"):
        sdaxr.asimilate  # noqa: B018


def readme_block(language: str, first: str) -> str:
    """The block of code in the README of this language that begins with this word."""
    readme = (ROOT / "README.md").read_text()
    (block,) = re.findall(rf"```{language}\n({first}.*?)```", readme, flags=re.DOTALL)
    return block


def test_readme_recipe_is_valid(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(readme_block("yaml", "generate"))
    names = [step.name for step in recipe.read(path)]
    assert names == ["generate", "train", "observe", "assimilate", "verify", "plot"]


def test_readme_commands_have_the_flags_they_need():
    lines = readme_block("sh", "sdaxr generate").replace("\\\n", " ").splitlines()
    for _, command, *arguments in map(shlex.split, lines):
        cli.main.commands[command].make_context(command, arguments)
    assert len(lines) == 7


def test_readme_example_is_valid_python():
    compile(readme_block("python", "import xarray"), "README.md", "exec")
