"""The memory that an assimilation and a forecast take, against what they said before they took it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

# In a process of its own, whose peak is that of the computation.
CODE = """
import io, json, logging, sys
import numpy as np
import torch
import sdaxr
torch.set_num_threads(1)
told = io.StringIO()
logging.basicConfig(level="INFO", stream=told)
peak = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
task, name, length, members, steps = json.loads(sys.argv[1])
prior = sdaxr.open_prior(name)
layout, spread = prior.layout, float(np.mean(prior.layout.std))
times = layout.times(0.0, length if task == "assimilate" else 4)
head = {} if task == "assimilate" else {"member": np.arange(members)}
states = layout.template(times, head)
random = np.random.default_rng(0)
states = states.map(lambda v: v.copy(data=(spread * random.standard_normal(v.shape)).astype("f4")), keep_attrs=True)
sampler, before = sdaxr.samplers.Ancestral(steps=steps), peak()
if task == "assimilate":
    operator = sdaxr.operators.subsample(4, dims=layout.space) if layout.space else sdaxr.operators.identity()
    observations = sdaxr.observe(states, operator, error=3 * spread)
    sdaxr.assimilate(observations, prior, times=times, members=members, progress=False, sampler=sampler)
else:
    sdaxr.forecast(states, prior, steps=length, progress=False, sampler=sampler)
print(json.dumps([before, peak(), told.getvalue()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(
    "case",
    [
        ("assimilate", "lorenz63", 256, 64, 2),
        ("assimilate", "kolmogorov", 9, 12, 3),
        ("forecast", "lorenz63", 200, 200, 2),
        ("forecast", "lorenz96", 100, 32, 6),
    ],
    ids=str,
)
def test_the_peak_is_known_within_a_fifth(case: tuple[Any, ...]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE, json.dumps(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, after, told = json.loads(done.stdout.splitlines()[-1])
    found = re.search(r"about ([\d.]+) GB at most", told)
    assert found is not None
    # Within a fifth on idle cores. Beside other tests, peaks were up to a quarter smaller; never larger.
    assert 0.8 < float(found[1]) * 1e9 / after < 1.45
    assert after > 1.3 * before  # It is not the libraries that are measured.
