"""What installs, what imports, and what they cost."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
import yaml

import sdaxr
from sdaxr import operators
from sdaxr.accessor import DatasetAccessor, DataTreeAccessor
from sdaxr.commands import cli, recipe
from sdaxr.operators import base

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
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
    return PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]


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


# Dependencies that no line of sdaxr imports.
UNIMPORTED = {
    "netcdf4",  # xarray reads and writes NetCDF with it
}


def imported_packages(folder: Path) -> set[str]:
    """Top-level names of what the modules in ``folder`` import, at any depth, beside the standard library."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"sdaxr"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    declared = {split_requirement(requirement)[0] for requirement in PROJECT["dependencies"]}
    owners = metadata.packages_distributions()
    imported = set()
    for package in imported_packages(ROOT / "sdaxr"):
        names = {name.lower().replace("_", "-") for name in owners.get(package, [])}
        assert names & declared, f"sdaxr imports {package} of {names or 'an unknown package'}, which is not declared"
        imported |= names
    assert declared - imported == UNIMPORTED


def test_imports_are_found_at_any_depth(tmp_path):
    code = "import a.b, os\nfrom c.d import e\nfrom . import f\nif True:\n    def g():\n        import h as i\n"
    (tmp_path / "module.py").write_text(code)
    assert imported_packages(tmp_path) == {"a", "c", "h"}


def test_types_are_for_users_too():
    assert resources.files("sdaxr").joinpath("py.typed").is_file()


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


def test_the_help_of_a_command_needs_no_library_of_the_computation():
    code = "import sys; from sdaxr.commands.cli import main; print(*sys.modules)"
    assert set(python(code).split()) & (set(HEAVY) - {"click"}) == set()


def test_import_takes_at_most_300_ms_on_top_of_xarray():
    code = "import time, xarray; t = time.perf_counter(); import sdaxr; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", [name for name in sdaxr.__all__ if name != "__version__"])
def test_every_name_of_the_table_of_contents_loads(name):
    assert name in dir(sdaxr)
    value = getattr(sdaxr, name)
    assert value.__doc__ or value.__file__


def test_a_function_is_not_hidden_by_the_module_that_defines_it():
    homes = {name: getattr(sdaxr, name).__module__ for name in ("generate", "assimilate", "plot", "verify")}
    # The libraries are loaded once; sdaxr anew for each function, its module first.
    found = python(f"""
import importlib, sys, torch, jax, matplotlib, scores, xarray
for name, home in {homes}.items():
    for module in [m for m in sys.modules if m.partition(".")[0] == "sdaxr"]:
        del sys.modules[module]
    for kind in (xarray.Dataset, xarray.DataArray, xarray.DataTree):
        if hasattr(kind, "sda"):
            del kind.sda
    importlib.import_module(home)
    import sdaxr
    print(name, callable(getattr(sdaxr, name)))
""")
    assert found.split() == [text for name in homes for text in (name, "True")]


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
    assert len(lines) == 8


def test_readme_example_is_valid_python():
    compile(readme_block("python", "import xarray"), "README.md", "exec")


def test_citation_names_the_project_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"].startswith("sdaxr")
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    dois = [reference["doi"] for reference in citation["references"]]
    assert dois == ["10.48550/arXiv.2306.10574", "10.48550/arXiv.2407.21314"]
    assert all(
        reference["type"] and reference["title"] and reference["authors"] for reference in citation["references"]
    )


def test_hosted_ci_runs_the_commands_of_ci_run():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    (job,) = workflow["jobs"].values()
    runs = {(case["python"], case["versions"]) for case in job["strategy"]["matrix"]["include"]}
    assert {python for python, _ in runs} == {"3.11", "3.12", "3.13"}
    assert {versions for _, versions in runs} == {"pinned", "lowest", "newest"}
    assert (re.sub("[^0-9.]", "", PROJECT["requires-python"]), "lowest") in runs
    assert job["steps"][-1]["run"] == "bash .ci/run"
    given = set(re.findall(r"SDAXR_\w+", (ROOT / ".github" / "workflows" / "tests.yml").read_text()))
    assert given <= set(re.findall(r"^#   (SDAXR_\w+) ", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))


def listed(page: str) -> list[str]:
    """The names in the tables of a page of the reference."""
    text = (ROOT / "docs" / "reference" / page).read_text()
    tables = re.findall(r"\.\. autosummary::\n(?:   :.*\n)+\n((?:   .+\n?)+)", text)
    return " ".join(tables).split()


@pytest.mark.parametrize("name", [name for name in sdaxr.__all__ if name != "__version__"])
def test_every_public_name_is_in_the_reference(name):
    if isinstance(getattr(sdaxr, name), ModuleType):
        assert f"sdaxr.{name}" in listed("index.rst")
    else:
        assert name in listed("functions.rst")


def test_every_method_of_the_accessor_is_in_the_reference():
    methods = {name for kind in (DatasetAccessor, DataTreeAccessor) for name in dir(kind) if not name.startswith("_")}
    assert set(listed("accessor.rst")) == methods


def test_the_gallery_has_every_notebook():
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    assert re.findall(r"^notebooks/(\w+)$", gallery, flags=re.MULTILINE)[0] == "quickstart"
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"\nnotebooks/{path.stem}\n" in gallery


def test_the_map_of_the_rooms_is_that_of_the_imports():
    rows = re.findall(r"^\| `([\w./]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    rooms = [row.removesuffix("/").removesuffix(".py") for row in rows]
    (layers,) = [c["layers"] for c in SETTINGS["tool"]["importlinter"]["contracts"] if c["name"] == "Rooms"]
    assert rooms == layers
    beside = ("__init__.py", "__pycache__", "py.typed")
    assert {path.stem for path in (ROOT / "sdaxr").iterdir() if path.name not in beside} == set(rooms)


@pytest.fixture
def example(request, tmp_path, monkeypatch) -> Iterator[ModuleType]:
    """The example in CONTRIBUTING.md that stands below the name of this file, as a module."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(rf"`sdaxr/{request.param}\.py`:\n\n```python\n(.*?)```", text, flags=re.DOTALL)[1]
    path = tmp_path / f"{Path(request.param).stem}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    monkeypatch.setattr(base, "REGISTRY", base.REGISTRY.copy())
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("example", ["systems/oscillator"], indirect=True)
def test_the_system_of_the_contributing_guide_works(example, tmp_path):
    system = example.Oscillator(frequency=2.0)
    archive = sdaxr.generate(system, tmp_path / "a.zarr", trajectories=2, steps=40, seed=0, progress=False).load()
    energy = archive["v"] ** 2 + 4 * archive["x"] ** 2
    np.testing.assert_allclose(energy / energy.isel(time=0), 1, rtol=1e-5)
    state = {name: archive[name].isel(trajectory=0, time=9).values for name in ("x", "v")}
    np.testing.assert_allclose(system.advance(state, 3)["x"], archive["x"][0, 10:13], atol=1e-6)


@pytest.mark.parametrize("example", ["operators/square"], indirect=True)
def test_the_operator_of_the_contributing_guide_works(example):
    data = xr.Dataset({"u": ("x", np.arange(3.0), {"units": "m"})})
    seen = example.square().apply(data)["u"]
    np.testing.assert_array_equal(seen, [0, 1, 4])
    assert seen.attrs["units"] == "1"
    assert operators.from_json(example.square().to_json()) == example.square()


def test_the_house_stays_small():
    """A newcomer finds every room at a glance, and reads a module at one sitting."""
    entries = {path.name for path in (ROOT / "sdaxr").iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert len(entries) <= 14, sorted(entries)
    long = {str(p): n for p in (ROOT / "sdaxr").rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
