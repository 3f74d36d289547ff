"""A posterior by Dask workers that are jobs of SLURM.

python recipes/clusters/dask_slurm.py observations.nc --prior kolmogorov --store posterior.zarr --jobs 8
"""

from __future__ import annotations

from typing import Any

import click
from dask_jobqueue import SLURMCluster
from distributed import Client

import sdaxr


@click.command()
@click.argument("observations")
@click.option("--prior", required=True, help="Name or path; a file system that all nodes share, or a URL.")
@click.option("--store", required=True, help="Archive, .zarr or .nc; a file system that all nodes share, or a URL.")
@click.option("--members", default=64, show_default=True)
@click.option("--batch", type=int, help="Members that a worker draws at once.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=8, show_default=True, help="Largest number of jobs; jobs come and go with the work.")
@click.option("--gpu/--no-gpu", default=False, help="One GPU for each job.")
@click.option("--partition", help="Partition (queue).")
@click.option("--account", help="Account that is charged.")
def main(
    observations: str, prior: str, store: str, members: int, batch: int | None, seed: int, jobs: int, gpu: bool,
    partition: str | None, account: str | None,
) -> None:  # fmt: skip
    """Draw a posterior on the jobs of a cluster, and write it to STORE."""
    with make_cluster(gpu=gpu, queue=partition, account=account) as cluster, Client(cluster):
        cluster.adapt(minimum=0, maximum_jobs=jobs)
        posterior = sdaxr.assimilate(
            sdaxr.read_observations(observations), prior, members=members, batch=batch, seed=seed, store=store
        )
        print(posterior)


def make_cluster(*, gpu: bool, **options: Any) -> SLURMCluster:
    """Jobs of one process each, with one GPU or four cores; ``options`` are those of `SLURMCluster`."""
    return SLURMCluster(
        # One thread for one unit at once. The cores are for the threads of the numerical libraries.
        cores=1,
        processes=1,
        job_cpu=4,
        memory="8GB",
        walltime="02:00:00",
        job_script_prologue=["export OMP_NUM_THREADS=4"],
        job_extra_directives=["--gpus=1"] if gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if gpu else [],
        **options,
    )


if __name__ == "__main__":
    main()
