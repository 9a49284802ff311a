"""What a folder of jobs found, as one tidy table, with figures.

    python -m peergrid.baselines.collect outputs/train

Writes `runs.parquet` (a row for each job, done, failed or unfinished), `days.parquet` (a row for each job and held-out
day), `curves.parquet` (a row for each job and point of its learning curve), `manifest.csv`, `scores.csv`, `scores.md`,
`scores.json` (in the form that marl-eval reads), learning curves and performance profiles; prints a table of scores and
what failed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console

from peergrid.baselines.entry import console_for_tables
from peergrid.baselines.studies.collect import collect, draw_curves, draw_profiles, manifest, marl_eval, scores, table
from peergrid.command import plainly
from peergrid.grid.files import write_json


def main() -> None:
    """Collect a folder, write its tables and figures, print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    runs, days, curves = collect(folder)
    console, written = console_for_tables(), [folder / "runs.parquet", folder / "manifest.csv"]
    runs.to_parquet(written[0], index=False)
    manifest(runs).to_csv(written[1], index=False)
    if len(days):
        found = scores(days)
        console.print(table(found))
        days.to_parquet(folder / "days.parquet", index=False)
        write_json(folder / "scores.json", marl_eval(days))
        found.to_csv(folder / "scores.csv", index=False)
        with (folder / "scores.md").open("w", encoding="utf-8") as file:
            Console(file=file, width=300).print(table(found, MARKDOWN))
        written += [folder / name for name in ("days.parquet", "scores.json", "scores.csv", "scores.md")]
        written.append(draw_profiles(days, folder / "profiles.png"))
    if len(curves):
        curves.to_parquet(folder / "curves.parquet", index=False)
        written += [folder / "curves.parquet", draw_curves(curves, folder / "curves.png")]
    counts: Mapping[Any, int] = runs["status"].value_counts().to_dict()
    console.print(f"{len(runs)} jobs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    for run in runs[runs["status"] == "failed"].to_dict("records"):
        console.print(f"failed: {run['job']}: {run['error']} (its folder has the traceback)", highlight=False)
    for path in written:
        console.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    with plainly():
        main()
