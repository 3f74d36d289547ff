"""Units per second into one archive, on the local disk and on an S3 server of this machine, and the requests per unit.

python recipes/benchmarks/stores.py

The server is that of moto, a process of its own that shares the cores with the writers. Where all cores are busy, a
rate is that of the processor time, which is measured, too: that of a unit in the writer, and in the server.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import xarray as xr
from report import report

from sdaxr.archives.creation import create_archive
from sdaxr.archives.paths import located
from sdaxr.archives.reading import open_archive
from sdaxr.archives.remote import Remote

BUCKET = "bucket"
SHAPE = (32, 64, 64)  # states, y, x: 1 MB in two variables
CONTEXT = multiprocessing.get_context("spawn")


@click.command()
@click.option("--units", default=1000, help="Number of units of the archive whose rate is measured.")
@click.option("--writers", default=8, help="Number of processes that write at once.")
@click.option("--work", multiple=True, type=float, default=(0.0, 0.25), help="Processor time that a unit takes, s.")
@click.option("--repeats", default=1, help="Runs of each case, in turns, whose median counts.")
def main(units: int, writers: int, work: tuple[float, ...], repeats: int) -> None:
    """Write the same units to both kinds of store, and count requests."""
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    with served() as (options, counts, server), tempfile.TemporaryDirectory() as folder:
        for seconds in work:
            rates: dict[str, list[float]] = {"local": [], "s3": []}
            for number in range(repeats):
                name = f"{seconds}-{number}.zarr"
                places = {"local": located(f"{folder}/{name}"), "s3": located(f"s3://{BUCKET}/{name}", options)}
                for kind, place in places.items():
                    rates[kind].append(rate(place, units, writers, seconds))
            local = float(np.median(rates["local"]))
            for kind, found in rates.items():
                about = {"case": "writing", "store": kind, "units": units, "writers": writers, "work/s": seconds}
                middle = float(np.median(found))
                rows.append(
                    about | {"units/s": middle, "lowest": min(found), "highest": max(found), "ratio": middle / local}
                )
                print(rows[-1], flush=True)
        rows += [*processor(options, server, Path(folder)), *requests(options, counts)]
    report("stores", rows, load)


def rate(place: Path | Remote, units: int, writers: int, work: float) -> float:
    """Units per second from the first unit to the finished archive."""
    archive = create_archive(place, template(units), "member", {"units": units})
    ready, start = CONTEXT.Barrier(writers + 1), CONTEXT.Event()
    parts = [range(first, units, writers) for first in range(writers)]
    processes = [CONTEXT.Process(target=write, args=(archive, part, work, ready, start)) for part in parts]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    start.set()
    for process in processes:
        process.join()
    archive.finalise()
    taken = time.perf_counter() - began
    assert open_archive(place).sizes["member"] == units
    return units / taken


def write(archive: Any, part: range, work: float, ready: Any, start: Any) -> None:
    """Write units, each after ``work`` seconds of computing."""
    archive.status()  # The libraries are loaded, and the store is open.
    ready.wait()
    start.wait()
    for index in part:
        began = time.process_time()
        while time.process_time() - began < work:
            pass
        archive.write(index, values(index))


def processor(options: dict[str, Any], server: psutil.Process, folder: Path) -> list[dict[str, Any]]:
    """Processor time of a unit that takes none itself: one writer, 100 units."""
    rows = []
    for kind, place in (("local", located(folder / "a.zarr")), ("s3", located(f"s3://{BUCKET}/a.zarr", options))):
        archive, unit = create_archive(place, template(101), "member", {}), values(0)
        archive.write(0, unit)
        served, began = sum(server.cpu_times()[:2]), time.process_time()
        for index in range(1, 101):
            archive.write(index, unit)
        taken = {
            "writer_ms": (time.process_time() - began) * 10,
            "server_ms": (sum(server.cpu_times()[:2]) - served) * 10,
        }
        rows.append({"case": "processor time", "store": kind, "units": 100, "writers": 1} | taken)
        print(rows[-1], flush=True)
    return rows


def requests(options: dict[str, Any], counts: Any) -> list[dict[str, Any]]:
    """Requests of one run, by its number of units: to write them, to ask for their status, to finish and to open."""
    rows = []
    for units in (100, 200, 400):
        place = located(f"s3://{BUCKET}/requests-{units}.zarr", options)
        row: dict[str, Any] = {"case": "requests", "store": "s3", "units": units, "writers": 1}
        before = counts.value
        archive = create_archive(place, small(units), "member", {"units": units})
        row["create"], before = counts.value - before, counts.value
        for index in range(units):
            archive.write(index, {"u": np.full(8, index, np.float32)})
        row["write"], before = counts.value - before, counts.value
        archive.pending()
        row["status"], before = counts.value - before, counts.value
        archive.finalise()
        row["finish"], before = counts.value - before, counts.value
        open_archive(place)
        row["open"] = counts.value - before
        row["requests/unit"] = sum(row[key] for key in ("create", "write", "status", "finish", "open")) / units
        rows.append(row)
        print(row, flush=True)
    return rows


def template(units: int) -> xr.Dataset:
    """Velocities of a flow."""
    zeros = np.broadcast_to(np.float32(0), (units, *SHAPE))
    return xr.Dataset({name: (("member", "time", "y", "x"), zeros) for name in ("u", "v")})


def small(units: int) -> xr.Dataset:
    """One variable of eight numbers."""
    return xr.Dataset({"u": (("member", "x"), np.broadcast_to(np.float32(0), (units, 8)))})


def values(index: int) -> dict[str, np.ndarray]:
    """One unit; noise, which is as hard to compress as turbulence."""
    random = np.random.default_rng(index)
    return {name: random.standard_normal(SHAPE, np.float32) for name in ("u", "v")}


@contextmanager
def served() -> Any:
    """The storage options of a running server, the number of requests that it has had, and its process."""
    import s3fs

    counts, port = CONTEXT.Value("q", 0), CONTEXT.Value("i", 0)
    process = CONTEXT.Process(target=serve, args=(counts, port), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.1)
    options = {"endpoint_url": f"http://127.0.0.1:{port.value}", "key": "any", "secret": "any"}
    s3fs.S3FileSystem(**options).mkdir(BUCKET)
    try:
        yield options, counts, psutil.Process(process.pid)
    finally:
        process.kill()


def serve(counts: Any, port: Any) -> None:
    """Run the server until the process is killed."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], start_response: Any) -> Any:
        with counts.get_lock():
            counts.value += 1
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, counted, threaded=True)
    port.value = server.server_port
    server.serve_forever()


if __name__ == "__main__":
    main()
