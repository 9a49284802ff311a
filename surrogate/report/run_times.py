"""How long does a query take? The transformer beside the exact solvers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.surrogate.model import DsoTransformer
from peergrid.surrogate.predictor import predict
from peergrid.surrogate.samples import Samples

ROWS_TIMED = (1, 12, 256, 3072)


def run_times(model: DsoTransformer, dso: OpfDso, samples: Samples) -> dict[str, float]:
    """Seconds per query of the transformer, for the trades' buses, and of exact solvers; medians, on one thread."""
    conic = dso.with_solver("conic")
    known = samples.rows(np.arange(max(ROWS_TIMED)) % len(samples)).questions

    def query(rows: Any) -> DsoQuery:
        asked = ("load_kw", "load_kvar", "proposed_kw", "lmp_per_kwh")
        return DsoQuery(**{name: getattr(known, name)[rows].astype(float) for name in asked})

    calls: dict[str, tuple[Callable[[], Any], int]] = {
        f"transformer, {n} at once": (partial(predict, model, known.rows(slice(n)), only_trades=True), n)
        for n in ROWS_TIMED
    }
    calls |= {
        "interior point, 1 at once": (partial(dso, query(0)), 1),
        "interior point, 256 at once": (partial(dso, query(slice(256))), 256),
        "conic solver, 1 at once": (partial(conic, query(0)), 1),
        "conic solver, 16 at once": (partial(conic, query(slice(16))), 16),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: _seconds(call) / n for name, (call, n) in calls.items()}
    finally:
        torch.set_num_threads(threads)


def _seconds(call: Callable[[], Any], budget_s: float = 1.0) -> float:
    """The median time of a call, of as many as fit the budget, and of five at least."""
    call()
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < budget_s:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
