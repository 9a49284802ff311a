"""What a forward pass of the transformer costs, and what makes it cheaper: sizes, places, rows at once, precision.

    python benchmarks/model_cost.py

One thread, medians; no weights are trained, which times don't depend on. Compiled graphs need a C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.surrogate import predictor
from peergrid.surrogate.checkpoint import SHIPPED, WEIGHTS, load_model
from peergrid.surrogate.model import DsoTransformer, ModelConfig
from peergrid.surrogate.predictor import as_tensor, predict
from peergrid.surrogate.questions import Questions
from peergrid.surrogate.sampling import Sampling, Shard, draw

SCENARIO = "ieee33"
SIZES = (ModelConfig(48, 3, 4, 96), ModelConfig(48, 2, 4, 96), ModelConfig(48, 2, 2, 96), ModelConfig(32, 2, 2, 64))
ROWS, ALL_ROWS = (12, 512), 3072


def milliseconds(call: Callable[[], Any], repeats: int = 15) -> float:
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    scenario = load_scenario(SCENARIO)
    dso = build_dso(scenario)
    samples = draw(Shard(scenario, "any", Sampling(), 0, 0, ALL_ROWS // 24))
    asked = samples.questions
    inputs = {n: asked.rows(slice(n)).each(as_tensor) for n in ROWS}
    shipped = load_model(Path(SHIPPED) / SCENARIO / WEIGHTS, dso)
    table = Table(title=f"Forward passes on {SCENARIO}, one thread [ms]", title_justify="left")
    table.add_column("what")
    for n in ROWS:
        table.add_column(f"{n} questions", justify="right")

    def row(what: str, call: Callable[[Questions[torch.Tensor]], Any]) -> None:
        with torch.inference_mode():
            table.add_row(what, *[f"{milliseconds(lambda x=inputs[n]: call(x)):.2f}" for n in ROWS])

    for size in SIZES:
        model = DsoTransformer(dso, size)
        row(f"{size}, trades only", lambda x, model=model: model(x, only_trades=True))
    row("shipped, all buses", lambda x: shipped(x))
    row("shipped, trades only", lambda x: shipped(x, only_trades=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        row("shipped, trades only, bfloat16", lambda x: shipped(x, only_trades=True))
    Console().print(table)
    for at_once in (32, 96, 128, 512):
        predictor.ROWS_AT_ONCE = at_once
        taken = milliseconds(lambda: predict(shipped, asked, only_trades=True), 5)
        print(f"{len(samples)} questions, {at_once} at once: {taken:.0f} ms")


if __name__ == "__main__":
    main()
