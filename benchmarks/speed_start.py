"""From a fresh process to the first step, and how much memory that takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from speed_common import Found, Table, duration, run_section, table
from tqdm import tqdm

REPEATS = 5
COLD_REPEATS = 2
ROWS = (1, 256)

IMPORT = "import peergrid"
PETTINGZOO = """
from peergrid.envs import p2p_trading_v0
env = p2p_trading_v0.parallel_env(scenario="ieee33", predictor="none")
env.reset(seed=0)
env.step({agent: env.action_space(agent).sample() for agent in env.agents})
"""
VECTOR = """
import gymnasium, peergrid
env = gymnasium.make_vec("peergrid/CentralTrading-v0", {rows})
env.reset(seed=0)
for _ in range({steps}):
    env.step(env.action_space.sample())
"""
# The most memory ever resident. On Linux not from getrusage, whose figure a child inherits from its parent.
REPORT = """
import json, pathlib, sys
status = pathlib.Path("/proc/self/status")
if status.is_file():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
else:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
print(json.dumps(peak))
"""


def measure(quick: bool) -> Found:
    """Seconds and peak memory of fresh processes."""
    times, rows = (1, (1, 16)) if quick else (REPEATS, ROWS)
    cases = {
        "Python alone": "",
        "`import peergrid`": IMPORT,
        "first step, PettingZoo": PETTINGZOO,
        **{f"one day, vector of {n}": VECTOR.format(rows=n, steps=24) for n in rows},
    }
    fresh(PETTINGZOO)  # compiled functions are on disk from here on
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in tqdm(range(times), desc="start", leave=False, disable=None):
        for name, code in cases.items():
            runs[name].append(fresh(code))
    cold = "first step, PettingZoo, nothing compiled yet"
    runs[cold] = []
    for _ in range(1 if quick else COLD_REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            runs[cold].append(fresh(PETTINGZOO, NUMBA_CACHE_DIR=folder))
    return {"rows": [{"name": name} | summary(found) for name, found in runs.items()]}


def fresh(code: str, **environment: str) -> tuple[float, float]:
    """Seconds that a new process takes to run the code, its own start included, and its peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code + REPORT],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, float(json.loads(process.stdout.splitlines()[-1]))


def summary(found: list[tuple[float, float]]) -> Found:
    seconds, mebibytes = np.array(found).T
    return {"seconds": float(np.median(seconds)), "mebibytes": float(np.median(mebibytes)), "repeats": len(found)}


def tables(found: Found) -> list[Table]:
    """A line for each thing that a fresh process does."""
    columns: dict[str, Any] = {
        "a fresh process": lambda row: row["name"],
        "takes": lambda row: duration(row["seconds"]),
        "peak memory": lambda row: f"{row['mebibytes']:,.0f} MiB",
        "median of": lambda row: str(row["repeats"]),
    }
    return [table("Start", columns, found["rows"])]


def figures(found: Found) -> dict[str, Figure]:
    """None."""
    return {}


if __name__ == "__main__":
    run_section(measure)
