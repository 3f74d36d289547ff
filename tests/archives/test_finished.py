"""How a file gets its name: killed at every step on the way, it is the old one, the new one, or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdaxr.archives.finished import is_unfinished, publish, remove, windows_of, workspace
from sdaxr.schema import ArchiveError

# A writer is killed before and after each of its renames and removals beside the file, one after the other, until it
# comes through. All is forked from a process that has imported everything, but started no thread.
DRIVER = """
import json, multiprocessing, os, shutil, signal, sys
import dask.array, distributed, numpy as np, xarray as xr, zarr
from pathlib import Path
from sdaxr.archives import finished, reading, stores
from sdaxr.archives.creation import create_archive

kind, path, context = sys.argv[1], Path(sys.argv[2]), multiprocessing.get_context("fork")
data = xr.Dataset({"a": (("unit", "x"), np.ones((2, 2)))}, {"unit": np.arange(2)})

def write(value):
    if kind != "units":
        return stores.save(data * value, path, overwrite=True)
    archive = create_archive(path, data, "unit", {"value": value}, overwrite=True)
    for index in archive.pending():
        archive.write(index, {"a": np.full(2, float(value))})
    archive.finalise()

def killed(function, moment, calls):
    def wrapped(*args, **kwargs):
        folder = Path(args[0]).parent
        if folder != path.parent and not (folder.parent == path.parent and folder.name.startswith(".")):
            return function(*args, **kwargs)  # a file within
        calls.append(function)
        if 2 * len(calls) - 1 == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        function(*args, **kwargs)
        if 2 * len(calls) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

def write_and_die(value, moment):
    calls = []
    for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree")):
        setattr(module, name, killed(getattr(module, name), moment, calls))
    write(value)

def state(queue):
    try:
        found = reading.open_archive(path).a.values
    except Exception as error:
        queue.put(type(error).__name__)
    else:
        queue.put(found.min() if found.min() == found.max() else "torn")

def child(function, *args):
    process = context.Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode

def ask():
    queue = context.SimpleQueue()
    assert child(state, queue) == 0
    return queue.get()

assert child(write, 1) == 0
states, moment = [], 0
while True:
    moment += 1
    code = child(write_and_die, moment + 1, moment)
    states.append(ask())
    if code == 0:
        break
    assert child(write, moment + 1) == 0
    assert ask() == moment + 1, (moment, ask())
    assert os.listdir(path.parent) == [path.name], (moment, os.listdir(path.parent))
print(json.dumps(states))
"""


@pytest.mark.parametrize(("kind", "name"), [("whole", "a.zarr"), ("whole", "a.nc"), ("units", "a.zarr")])
def test_a_kill_at_every_step_leaves_the_old_file_the_new_one_or_none(tmp_path: Path, kind: str, name: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", DRIVER, kind, str(tmp_path / name)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    states = json.loads(result.stdout)
    assert states[-1] == len(states) + 1  # this one was not killed
    for moment, state in enumerate(states[:-1], start=1):
        assert state in (moment, moment + 1, "ArchiveError"), (moment, states)
    # A kill before the first rename leaves the old file; one at the end leaves the new one.
    assert states[0] == 1 and states[-2] == len(states)
    if name == "a.nc":  # a file replaces a file in one step
        assert "ArchiveError" not in states


def test_a_workspace_is_one_writers_and_goes_with_it(tmp_path: Path) -> None:
    with workspace(tmp_path / "a") as one, workspace(tmp_path / "a") as other:
        assert one != other and one.is_dir() and other.is_dir()
        assert is_unfinished(one) and is_unfinished(one / "a")
    assert not list(tmp_path.iterdir())


def test_leftovers_of_other_names_are_not_touched(tmp_path: Path) -> None:
    names = [f".ab.{'0' * 32}.partial", f".a.b.{'0' * 32}.partial", ".a.mine.partial", "a.partial", "a.windows"]
    for name in [*names, f".a.{'0' * 32}.partial"]:
        (tmp_path / name).mkdir()
    with workspace(tmp_path / "a"):
        pass
    assert {p.name for p in tmp_path.iterdir()} == set(names)


def test_a_replaced_file_gets_its_name_back(tmp_path: Path) -> None:
    left = tmp_path / f".a.{'0' * 32}.partial"
    left.mkdir()
    (left / "replaced").write_text("old")
    with workspace(tmp_path / "a"):
        assert (tmp_path / "a").read_text() == "old" and not left.exists()


def test_publishing_does_not_replace_unasked(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with workspace(tmp_path / "a") as own:
        (own / "a").write_text("new")
        with pytest.raises(ArchiveError, match="and stays"):
            publish(own / "a", tmp_path / "a", own, replace=False)
        assert (tmp_path / "a").read_text() == "old"
        publish(own / "a", tmp_path / "a", own, replace=True)
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("directory", [False, True])
def test_what_is_removed_is_gone_at_once(tmp_path: Path, directory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = windows_of(tmp_path / "c.zarr")
    path.mkdir() if directory else path.write_text("")
    seen = []
    monkeypatch.setattr("shutil.rmtree", lambda tree, **_: seen.append((tree.name, path.exists())))
    remove(path)
    remove(path)
    assert [there for _, there in seen] == [False] and seen[0][0].startswith(".c.zarr.windows.")
