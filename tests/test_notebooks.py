"""The notebooks run, and the outputs that are stored in them are fit to be read elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import sdaxr

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PATHS = re.compile(r"(?<![\w.:/<])/(tmp|root|work|home|Users|usr|opt)\b")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: Any) -> list[str]:
    """Everything in the outputs that can be read; pictures are left out."""
    found = []
    for output in (o for cell in code_cells(notebook) for o in cell.outputs):
        found.append(output.get("text", ""))
        found += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def directories(notebook: Any) -> list[str]:
    """Folders of a machine that the outputs name."""
    return [match.group() for text in texts(notebook) for match in PATHS.finditer(text)]


SAMPLER = {"steps": 16, "corrections": 0, "mixing": False}
# What the stored outputs show with more of it: members, and steps of a training, a sampler, and a spin-up.
SMALLER: dict[str, Callable[[re.Match[str]], str]] = {
    r"members=(\d+)": lambda found: f"members={min(2, int(found[1]))}",
    r"steps=\d+(,\s+optimisation=)": lambda found: f"steps=20{found[1]}",
    r"(\.assimilate\([^()]*|\.forecast\(\s*prior)": lambda found: f"{found[1]}, sampler={SAMPLER}",
    r"generate\(\s+\"kolmogorov\", ([^=]*)trajectories": lambda found: (
        f'generate("kolmogorov", {found[1]}resolution=128, coarsen=2, spin_up=16, trajectories'
    ),
    r"forecast\(\"kolmogorov\"": lambda found: f"{found[0]}, resolution=128, coarsen=2",
    r"spin_up=3\.0": lambda found: "spin_up=0.1",
    r"(forecast\(\"quasigeostrophic\", steps=)\d+": lambda found: f"{found[1]}9",
}


def smaller(source: str) -> str:
    """A cell that computes less."""
    for pattern, less in SMALLER.items():
        source = re.sub(pattern, less, source)
    return source


def test_cells_are_made_smaller():
    assert smaller("a(members=12, steps=200,\n  optimisation={})") == "a(members=2, steps=20,\n  optimisation={})"
    assert smaller("plot(members=1, steps=9)") == "plot(members=1, steps=9)"
    drawn = "o.sda.assimilate(prior, members=2, sampler={'steps': 16, 'corrections': 0, 'mixing': False})"
    assert smaller("o.sda.assimilate(prior, members=2)") == drawn


def test_stored_outputs_are_complete(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {kind for cell in cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert all(output.output_type not in ("error", "stream") or output.get("name") == "stdout"
               for cell in cells for output in cell.outputs)  # fmt: skip


def test_stored_outputs_name_no_directory(notebook):
    assert any("<table" in text or "xarray" in text for text in texts(notebook))
    assert directories(notebook) == []
    # One that does name a directory, and one that only looks as if it did, are told apart.
    for text in ("written to '/tmp/x.gif'", "see https://example.org/home or a/work"):
        output = nbformat.v4.new_output("stream", name="stdout", text=text)
        code_cells(notebook)[0].outputs.append(output)
    assert directories(notebook) == ["/tmp"]


def test_notebook_is_small(path):
    assert path.stat().st_size < 1e6


def test_notebook_runs(notebook, tmp_path, monkeypatch):
    if any("SDAXR_DATA" in cell.source for cell in code_cells(notebook)) and not os.environ.get("SDAXR_DATA"):
        pytest.skip("SDAXR_DATA names no folder with the data of this notebook")
    for cell in code_cells(notebook):
        cell.outputs = []
        cell.source = smaller(cell.source)
    # The kernel imports the sdaxr under test and leaves nothing in the user's home; it draws inline, as in a browser.
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("PYTHONPATH", str(Path(sdaxr.__file__).parents[1]))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    # A cell may take as long as it needs, and a busy machine minutes to start a kernel.
    client = nbclient.NotebookClient(
        notebook, timeout=None, startup_timeout=600, iopub_timeout=120, kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
    )  # fmt: skip
    client.execute()
    assert all(cell.execution_count for cell in code_cells(notebook))
    errors = [o for cell in code_cells(notebook) for o in cell.outputs if o.get("name") == "stderr"]
    assert not errors, errors[0]
    assert not os.listdir(work), "the notebook wrote beside itself"
