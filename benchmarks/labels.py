"""How fast the surrogate's data set is made, and that it doesn't depend on the number of workers.

    python benchmarks/labels.py [--days 2000]

A sample is a question with a proposal of every microgrid, and the exact DSO's answer. Times include everything from
the draw to the file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from peergrid.surrogate.dataset import load_subset, make_dataset
from peergrid.surrogate.sampling import Sampling

SCENARIOS = ("ieee33", "ieee33_communities")
WORKERS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=2000)
    options = parser.parse_args()
    table = Table(title=f"Data sets of {options.days} days", title_justify="left")
    for name in ("scenario", "workers", "samples", "samples/s", "proposals/s", "SHA-256 of all arrays"):
        table.add_column(name, justify="left" if name in ("scenario", "SHA-256 of all arrays") else "right")
    for scenario in SCENARIOS:
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                # Processes start, and compiled code is loaded, before the clock does.
                make_dataset(
                    Path(folder) / "first", scenario, {"train": Sampling(days=8)}, shard_days=2, workers=workers
                )
                start = time.perf_counter()
                made = make_dataset(Path(folder), scenario, {"train": Sampling(days=options.days)}, workers=workers)
                seconds = time.perf_counter() - start
                n_trade = load_subset(Path(folder), "train").proposed_kw.shape[1]
            n = made["samples"]["train"]
            rates = (f"{n / seconds:,.0f}", f"{n_trade * n / seconds:,.0f}")
            table.add_row(scenario, str(workers), f"{n:,}", *rates, made["sha256"][:16])
    Console().print(table)


if __name__ == "__main__":
    main()
