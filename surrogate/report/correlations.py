"""How inputs and targets of the data set are correlated: Pearson's coefficients at each microgrid's bus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from peergrid.surrogate.samples import Samples

TARGETS = ("correction", "nodal price", "shedding")
LEAST_SPREAD_KW = 1e-2
ROUNDING = 1e-6  # of float32, as a share

Pearson = dict[str, dict[str, dict[str, float]]]


def features_of_trades(samples: Samples, trade_bus: np.ndarray) -> dict[str, Float[np.ndarray, "row trade"]]:
    """The P2P paper's features and the LMP, at every microgrid's bus."""
    load_kw, load_kvar = samples.load_kw[:, trade_bus], samples.load_kvar[:, trade_bus]

    def everywhere(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], load_kw.shape)

    return {
        "active load": load_kw,
        "power factor": load_kw / np.maximum(np.hypot(load_kw, load_kvar), 1e-9),
        "proposed net injection": samples.proposed_kw,
        "c_ls": everywhere(samples.c_ls_per_kw2h),
        "lambda_corr": everywhere(samples.lambda_corr_per_kw2h),
        "LMP": everywhere(samples.lmp_per_kwh),
    }


def targets_of_trades(samples: Samples, trade_bus: np.ndarray) -> dict[str, Float[np.ndarray, "row trade"]]:
    """What is cut of a proposal (of its sign), the nodal price and the shed load, at every microgrid's bus."""
    correction_kw = samples.proposed_kw - samples.accepted_kw
    found = (correction_kw, samples.price_per_kwh[:, trade_bus], samples.shed_kw[:, trade_bus])
    return dict(zip(TARGETS, found, strict=True))


def pearson_by_bus(samples: Samples, bus_names: Sequence[str], trade_bus: np.ndarray) -> Pearson:
    """Pearson's coefficient by bus, feature and target, over samples that were solved to the tolerance.

    NaN where the feature does not vary, or the target does not: corrections and shedding of less than 0.01 kW in
    standard deviation, which may be what the solver leaves.

    Source: the form is that of the P2P paper's Table III; the LMP is ours.
    """
    solved = samples.rows(samples.status == 0)
    features, targets = features_of_trades(solved, trade_bus), targets_of_trades(solved, trade_bus)
    return {
        bus_names[bus]: {
            feature: {target: _pearson(x[:, k], y[:, k], _noise(target)) for target, y in targets.items()}
            for feature, x in features.items()
        }
        for k, bus in enumerate(trade_bus)
    }


def _noise(target: str) -> float:
    return 0.0 if target == "nodal price" else LEAST_SPREAD_KW


def _pearson(x: Float[np.ndarray, " row"], y: Float[np.ndarray, " row"], noise: float) -> float:
    if not x.size:
        return float("nan")
    x, y = x.astype(float), y.astype(float)
    does_vary = x.std() > ROUNDING * np.abs(x).max() and y.std() > max(noise, ROUNDING * np.abs(y).max())
    return float(np.corrcoef(x, y)[0, 1]) if does_vary else float("nan")


def pearson_cells(found: Pearson) -> Iterator[tuple[str, ...]]:
    """The rows of a table of them: bus, feature, and a number per target, "-" where there is none."""
    for bus, features in found.items():
        for feature, of_targets in features.items():
            numbers = [of_targets[target] for target in TARGETS]
            yield bus, feature, *["-" if np.isnan(value) else f"{round(value, 2) + 0.0:.2f}" for value in numbers]


def pearson_markdown(found: Pearson) -> str:
    """All coefficients as a table for a page, a bus after the other."""
    lines = [f"| bus | feature | {' | '.join(TARGETS)} |", f"|---|---|{'---|' * len(TARGETS)}"]
    last = None
    for bus, *cells in pearson_cells(found):
        lines.append(f"| {bus if bus != last else ''} | {' | '.join(cells)} |")
        last = bus
    return "\n".join(lines) + "\n"
