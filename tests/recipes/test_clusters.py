"""The files for SLURM, with a queue that starts each job on this machine at once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import distributed
import numpy as np
import pytest
import xarray as xr
from processes import command, forked
from recipe_modules import RECIPES, recipe_modules

import sdaxr
from sdaxr import operators as op
from sdaxr.archives.progress import progress
from sdaxr.archives.stores import save

SAMPLER = {"steps": 8, "corrections": 0, "mixing": False}
FEW = [f"--sampler-option={key}={json.dumps(value)}" for key, value in SAMPLER.items()] + [
    "--method-option=variance=0.1",
    "--batch=2",
    "--seed=1",
]


@pytest.fixture
def observations(tmp_path: Path) -> xr.Dataset:
    chain = sdaxr.generate("lorenz63", tmp_path / "t.zarr", trajectories=1, steps=9, split=(0, 0, 1), progress=False)
    found = sdaxr.observe(chain.isel(trajectory=0).load(), op.select("a"), every=4, error=1.0, seed=1)
    save(found, tmp_path / "observations.nc")
    return found


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The search path, with the command `sdaxr` of this interpreter."""
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "sdaxr", f'#!/bin/bash\nexec {sys.executable} -m sdaxr.commands "$@"\n')
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


def test_an_array_of_jobs_fills_one_archive(tmp_path: Path, observations: xr.Dataset, path: str) -> None:
    """Of three jobs two run at once, and the first one of all comes last."""
    store = tmp_path / "posterior.zarr"
    # In the place of the command, which is forked: threads and arguments that it is given.
    executable(tmp_path / "bin" / "sdaxr", '#!/bin/bash\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@"\n')

    def submit(number: int) -> BaseProcess:
        call = ["bash", str(RECIPES / "clusters" / "job_array.sh"), "8", str(tmp_path / "observations.nc")]
        job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number + 1), "SLURM_ARRAY_TASK_MIN": "1"}
        job |= {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_CPUS_PER_TASK": "1"}
        options = ["--prior", "lorenz63", "--store", str(store), *FEW]
        said = subprocess.run(
            [*call, *options], env=os.environ | job | {"PATH": path}, check=True, capture_output=True, text=True
        )
        threads, *words = said.stdout.splitlines()
        assert threads == "1" and said.stderr == ""
        process = forked().Process(target=command, args=(words, job, tmp_path / f"{number}.log"))
        process.start()
        return process

    def ended(*jobs: BaseProcess) -> None:
        for job in jobs:
            job.join()
            assert job.exitcode == 0
        assert all(log.read_text() == "" for log in tmp_path.glob("*.log"))

    ended(submit(2), submit(1))
    assert progress(store).pending == [0, 1]
    assert sorted((w.job, w.first, w.stop) for w in progress(store).writers) == [("7_2", 2, 5), ("7_3", 5, 8)]
    ended(submit(0))
    found = sdaxr.open_archive(store)
    whole = sdaxr.assimilate(
        observations, "lorenz63", members=8, batch=2, seed=1, sampler=SAMPLER, method={"variance": 0.1}, progress=False
    )
    # A batch in two jobs is smaller, which changes rounding.
    np.testing.assert_allclose(found.a, whole.a, rtol=0, atol=1e-3)


def test_an_array_has_to_be_one(path: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")} | {"PATH": path}
    command = ["bash", str(RECIPES / "clusters" / "job_array.sh"), "8", "o.nc"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "submit this file with sbatch --array=0-7" in done.stderr


def test_dask_workers_are_jobs(
    tmp_path: Path, observations: xr.Dataset, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    executable(
        tmp_path / "bin" / "sbatch",
        f'#!/bin/bash\ncp "$1" {tmp_path}/job.sh\nsetsid bash {tmp_path}/job.sh > /dev/null 2>&1 < /dev/null &\n'
        "echo Submitted batch job $!\n",
    )
    executable(tmp_path / "bin" / "scancel", '#!/bin/bash\nfor job in "$@"; do kill -- "-$job"; done\n')
    monkeypatch.setenv("PATH", path)
    monkeypatch.chdir(tmp_path)
    how = {"scheduler_options": {"host": "127.0.0.1", "dashboard_address": ":0"}, "queue": "short"}
    with (
        recipe_modules("clusters", ["dask_slurm"]) as modules,
        modules.dask_slurm.make_cluster(gpu=True, **how) as cluster,
        distributed.Client(cluster),
    ):
        script = cluster.job_script()
        cluster.adapt(minimum=0, maximum_jobs=1, interval="200ms")
        found = sdaxr.assimilate(
            observations, "lorenz63", members=4, batch=2, seed=1, sampler=SAMPLER, method={"variance": 0.1},
            store=tmp_path / "posterior.zarr", progress=False, device="cpu",
        )  # fmt: skip
    lines = ("#SBATCH -p short", "#SBATCH --cpus-per-task=4", "#SBATCH --gpus=1", "export OMP_NUM_THREADS=4")
    assert set(lines) <= set(script.splitlines())
    assert "--nthreads 1" in script and "--resources GPU=1" in script
    assert found.sizes["member"] == 4
