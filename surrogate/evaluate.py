"""How well the transformer predicts the DSO: the report, always beside plain methods.

    python -m peergrid.surrogate.evaluate [scenario=ieee33] [output=folder of the training]

    sets           test days; hours, loads and sizes that training never saw; questions searched to mislead the model
    local view     what a microgrid would be told in the market, not knowing the others' current proposals
    another feeder the encoder on a network that it was not trained on, before and after some training there
    correlations   of inputs and targets at each microgrid's bus, as `peergrid.surrogate.describe` prints them
    run time       a query of the transformer beside one of the exact solvers

All figures are over the microgrids' buses (shedding: over all), from rows that the exact DSO solved to its tolerance.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from peergrid.command import command
from peergrid.envs.p2p_trading.predictors import Prediction, oracle
from peergrid.envs.p2p_trading.scenario import (
    Scenario,
    build_dso,
    build_microgrids,
    load_scenario,
    scenario_from_dict,
)
from peergrid.grid.dso import DsoQuery, OpfDso
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.surrogate.correlations import TARGETS, Pearson, pearson_by_bus, pearson_cells
from peergrid.surrogate.dataset import MANIFEST, Samples, label, load_subset, solar_factors, write_whole
from peergrid.surrogate.figures import draw_data_set, draw_figures
from peergrid.surrogate.market import Rollout, play
from peergrid.surrogate.model import DsoTransformer, Inputs
from peergrid.surrogate.plain import Answers, Intervals, Method, no_curtailment, plain_methods
from peergrid.surrogate.predictor import WEIGHTS, TransformerPredictor, load_model, predict
from peergrid.surrogate.settings import SurrogateSettings, settings_from
from peergrid.surrogate.transfer import transfer

TRANSFORMER = "transformer"
CURVES = "training.json"
SETS = ("test", "unseen hours", "load x1.2", "load x0.6", "size x2", "size x4")
CURTAILED_SHARE = 0.01  # of the rating: less is accepted, by the market's own reckoning
FULLY_SHED_SHARE = 0.99  # of the load: what is left there is priced by chance
# The exact acceptance may miss its interval by this share of the rating, which is the exact solver's own error.
COVERAGE_TOLERANCE = 1e-4
SHEDDING_NOISE_KW = 1e-2  # where nobody is shed, what the exact solver leaves is far below this
TABLE_WIDTH = 130
ROWS_TIMED = (1, 12, 256, 3072)


@dataclass(frozen=True)
class Errors:
    """How far predictions are off; NaN where there is nothing to compare."""

    r2: float
    rmse: float
    mae: float


@dataclass(frozen=True)
class Coverage:
    """How often the truth lies in its interval, and how wide intervals are on average."""

    price: float
    price_curtailed: float
    accepted: float
    accepted_curtailed: float
    width_per_kwh: float
    width_share_of_rating: float
    width_share_of_rating_curtailed: float


@dataclass(frozen=True)
class Score:
    """How well a method predicts a set; corrections and shedding in kW, prices in currency per kWh.

    Prices are of buses whose load is not fully shed, whose share among all is `fully_shed`. Whether a proposal is
    curtailed is told by a correction of more than 1 % of the rating.
    """

    rows: int
    rows_left_out: int
    curtailed: float
    fully_shed: float
    correction_curtailed: Errors
    correction: Errors
    accepted_mae_of_rating: float
    accepted_mae_of_no_curtailment: float
    precision: float
    recall: float
    f1: float
    price: Errors
    shed: Errors | None
    coverage: Coverage | None


def score(samples: Samples, answers: Answers, rating_kw: Float[np.ndarray, " trade"], trade_bus: np.ndarray) -> Score:
    """How well a method's answers meet those of the exact DSO."""
    solved = samples.status == 0
    accepted, proposed = samples.accepted_kw[solved].astype(float), samples.proposed_kw[solved].astype(float)
    price, load = samples.price_per_kwh[solved][:, trade_bus], samples.load_kw[solved][:, trade_bus]
    said_accepted, said_price = answers.accepted_kw[solved], answers.price_per_kwh[solved]
    correction, said_correction = proposed - accepted, proposed - said_accepted
    threshold = CURTAILED_SHARE * rating_kw
    cut, said_cut = np.abs(correction) > threshold, np.abs(said_correction) > threshold
    is_shed = (load > 0) & (samples.shed_kw[solved][:, trade_bus] >= FULLY_SHED_SHARE * load)
    mae = float(np.mean(np.abs(said_accepted - accepted) / rating_kw))
    hits = float((cut & said_cut).sum())
    return Score(
        rows=int(solved.sum()),
        rows_left_out=int((~solved).sum()),
        curtailed=float(cut.mean()),
        fully_shed=float(is_shed.mean()),
        correction_curtailed=_errors(correction[cut], said_correction[cut]),
        correction=_errors(correction, said_correction),
        accepted_mae_of_rating=mae,
        accepted_mae_of_no_curtailment=_ratio(mae, float(np.mean(np.abs(correction) / rating_kw))),
        precision=_ratio(hits, float(said_cut.sum())),
        recall=_ratio(hits, float(cut.sum())),
        f1=_ratio(2.0 * hits, float(cut.sum() + said_cut.sum())),
        price=_errors(price[~is_shed], said_price[~is_shed]),
        shed=None
        if answers.shed_kw is None
        else _errors(samples.shed_kw[solved], answers.shed_kw[solved], SHEDDING_NOISE_KW),
        coverage=None
        if answers.intervals is None
        else _coverage(answers.intervals, solved, accepted, price, cut, is_shed, rating_kw),
    )


def _coverage(
    intervals: Intervals,
    solved: Bool[np.ndarray, " row"],
    accepted_kw: Float[np.ndarray, "solved trade"],
    price_per_kwh: Float[np.ndarray, "solved trade"],
    cut: Bool[np.ndarray, "solved trade"],
    is_shed: Bool[np.ndarray, "solved trade"],
    rating_kw: Float[np.ndarray, " trade"],
) -> Coverage:
    low_kw, high_kw = intervals.accepted_low_kw[solved], intervals.accepted_high_kw[solved]
    low, high = intervals.price_low_per_kwh[solved], intervals.price_high_per_kwh[solved]
    room_kw = COVERAGE_TOLERANCE * rating_kw
    holds_accepted = (accepted_kw >= low_kw - room_kw) & (accepted_kw <= high_kw + room_kw)
    holds_price = (price_per_kwh >= low) & (price_per_kwh <= high)
    return Coverage(
        price=_share(holds_price[~is_shed]),
        price_curtailed=_share(holds_price[~is_shed & cut]),
        accepted=_share(holds_accepted),
        accepted_curtailed=_share(holds_accepted[cut]),
        width_per_kwh=float((high - low).astype(float)[~is_shed].mean()),
        width_share_of_rating=float(((high_kw - low_kw) / rating_kw).mean()),
        width_share_of_rating_curtailed=float(((high_kw - low_kw) / rating_kw)[cut].mean()) if cut.any() else math.nan,
    )


def _errors(truth: Float[np.ndarray, "..."], said: Float[np.ndarray, "..."], noise: float = 0.0) -> Errors:
    """A truth that deviates from its mean by no more than the noise has no R2."""
    if not truth.size:
        return Errors(math.nan, math.nan, math.nan)
    truth = truth.astype(float)
    off = said - truth
    variance = float(np.mean((truth - truth.mean()) ** 2))
    square = float(np.mean(off**2))
    r2 = 1.0 - square / variance if variance > noise**2 else math.nan
    return Errors(r2=r2, rmse=math.sqrt(square), mae=float(np.mean(np.abs(off))))


def _share(claims: Bool[np.ndarray, "..."]) -> float:
    return _ratio(float(claims.sum()), float(claims.size))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def answers_of(model: DsoTransformer) -> Method:
    """The transformer as a method."""
    at_trades = model.network.trade_bus.numpy()

    def answer(samples: Samples) -> Answers:
        found = predict(model, _questions(samples))
        return Answers(
            accepted_kw=found.accepted_kw,
            price_per_kwh=found.price_per_kwh[:, at_trades],
            shed_kw=found.shed_kw,
            intervals=Intervals(
                accepted_low_kw=found.accepted_low_kw,
                accepted_high_kw=found.accepted_high_kw,
                price_low_per_kwh=found.price_low_per_kwh[:, at_trades],
                price_high_per_kwh=found.price_high_per_kwh[:, at_trades],
            ),
        )

    return answer


def _questions(samples: Samples) -> dict[str, np.ndarray]:
    return {name: getattr(samples, name) for name in Inputs._fields}


def adversarial(
    model: DsoTransformer,
    dso: OpfDso,
    samples: Samples,
    rng: np.random.Generator,
    *,
    rating_kw: Float[np.ndarray, " trade"],
    lmp_per_kwh: tuple[float, float],
    n_start: int = 512,
    rounds: int = 60,
) -> Samples:
    """Questions on which the model errs, found by climbing from random samples; labelled by the exact DSO.

    Each round perturbs some proposals within the ratings, the loads to between 0.8 and 1.1 of the sample's own, no
    further in all than any sample's, and the LMP within its range, and keeps what raises the mean error of acceptance.
    """
    solved = np.flatnonzero(samples.status == 0)
    start = samples.rows(rng.choice(solved, min(n_start, len(solved)), replace=False))
    total_kw, own_kw = samples.load_kw.sum(axis=1), start.load_kw.sum(axis=1)
    least, most = np.maximum(0.8, total_kw.min() / own_kw), np.minimum(1.1, total_kw.max() / own_kw)
    worst, error, scale = start, acceptance_error(model, start, rating_kw), np.ones(len(start))
    for _ in tqdm(range(rounds), desc="adversarial", unit="round", disable=None, leave=False):
        shape = worst.proposed_kw.shape
        step_kw = np.where(rng.random(shape) < 0.3, 0.4 * rng.standard_normal(shape), 0.0) * rating_kw
        tried_scale = (scale + 0.05 * rng.standard_normal(len(start))).clip(least, most)
        asked = _questions(worst) | {
            "proposed_kw": (worst.proposed_kw + step_kw).clip(-rating_kw, rating_kw),
            "load_kw": start.load_kw * tried_scale[:, None],
            "load_kvar": start.load_kvar * tried_scale[:, None],
            "lmp_per_kwh": (worst.lmp_per_kwh * np.exp(0.1 * rng.standard_normal(len(start)))).clip(*lmp_per_kwh),
        }
        tried = label(dso, start.hour, asked)
        tried_error = acceptance_error(model, tried, rating_kw)
        is_worse = (tried_error > error) & (tried.status == 0)
        worst = _chosen(is_worse, tried, worst)
        error, scale = np.where(is_worse, tried_error, error), np.where(is_worse, tried_scale, scale)
    return worst


def acceptance_error(
    model: DsoTransformer, samples: Samples, rating_kw: Float[np.ndarray, " trade"]
) -> Float[np.ndarray, " row"]:
    """The mean error of what is accepted of a row's trades, as a share of their ratings."""
    found = predict(model, _questions(samples), only_trades=True)
    return (np.abs(found.accepted_kw - samples.accepted_kw) / rating_kw).mean(axis=1)


def _chosen(rows: Bool[np.ndarray, " row"], there: Samples, elsewhere: Samples) -> Samples:
    def pick(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return Samples(**{f.name: pick(getattr(there, f.name), getattr(elsewhere, f.name)) for f in fields(Samples)})


def local_view(model: DsoTransformer, dso: OpfDso, rollout: Rollout) -> dict[str, Score]:
    """What each microgrid would be told of the proposal that it then makes, on days of random actions.

    A microgrid knows what was accepted of the others in the last interval, not what they propose now. Beside that stand
    the exact DSO with the same ignorance, whose error is ignorance alone, and the model with full information.
    """
    truth, question, public = rollout.truth, rollout.question, rollout.public
    predictor = TransformerPredictor(model, dso, public.rating_kw)
    answers = {
        "no curtailment": no_curtailment(truth),
        "transformer, local view": _told(predictor(question, public)),
        "exact DSO, local view": replace(_told(oracle(question, public)), intervals=None),  # they are points
        "transformer, full information": answers_of(model)(truth),
    }
    return {name: score(truth, found, public.rating_kw, dso.trade_bus) for name, found in answers.items()}


def _told(prediction: Prediction) -> Answers:
    """A prediction for one proposal each, as answers."""
    only = {name: values[:, :, 0, 0] for name, values in vars(prediction).items()}
    accepted_kw, price_per_kwh = only.pop("accepted_kw"), only.pop("price_per_kwh")
    return Answers(accepted_kw=accepted_kw, price_per_kwh=price_per_kwh, intervals=Intervals(**only))


def run_times(model: DsoTransformer, dso: OpfDso, samples: Samples) -> dict[str, float]:
    """Seconds per query of the transformer, for the trades' buses, and of exact solvers; medians, on one thread."""
    conic = OpfDso(
        dso.feeder,
        dso.trade_bus,
        generators=dso.generators,
        penalty=dso.penalty,
        upper_voltage=dso.upper_voltage,
        substation_limit_kva=dso.substation_limit_kva,
        solver="conic",
    )
    known = _questions(samples.rows(np.arange(max(ROWS_TIMED)) % len(samples)))

    def first(n: int) -> dict[str, np.ndarray]:
        return {name: values[:n] for name, values in known.items()}

    def query(rows: Any) -> DsoQuery:
        asked = ("load_kw", "load_kvar", "proposed_kw", "lmp_per_kwh")
        return DsoQuery(**{name: known[name][rows].astype(float) for name in asked})

    calls: dict[str, tuple[Callable[[], Any], int]] = {
        f"{TRANSFORMER}, {n} at once": (partial(predict, model, first(n), only_trades=True), n) for n in ROWS_TIMED
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


Scores = Mapping[str, Mapping[str, Score]]
Columns = Mapping[str, Callable[[Score], str]]


def _cells(name: str, of: Callable[[Score], Errors | None], digits: int, unit: str) -> Columns:
    """The columns R2, RMSE and MAE of one quantity."""

    def show(s: Score, what: str, digits: int) -> str:
        errors = of(s)
        return "" if errors is None else f"{getattr(errors, what):.{digits}f}"

    return {
        f"{name}\nR2": lambda s: show(s, "r2", 4),
        f"{name}\nRMSE {unit}": lambda s: show(s, "rmse", digits),
        f"{name}\nMAE {unit}": lambda s: show(s, "mae", digits),
    }


CORRECTIONS: Columns = {
    **_cells("curtailed", lambda s: s.correction_curtailed, 1, "kW"),
    **_cells("all", lambda s: s.correction, 1, "kW"),
}
ACCEPTANCE: Columns = {
    "accepted MAE\n% of rating": lambda s: f"{100.0 * s.accepted_mae_of_rating:.3f}",
    "% of no\ncurtailment": lambda s: f"{100.0 * s.accepted_mae_of_no_curtailment:.1f}",
    "precision": lambda s: f"{s.precision:.3f}",
    "recall": lambda s: f"{s.recall:.3f}",
    "F1": lambda s: f"{s.f1:.3f}",
}
PRICES: Columns = {
    **_cells("price", lambda s: s.price, 4, "/kWh"),
    **_cells("shed", lambda s: s.shed, 2, "kW"),
}


def _cover(show: Callable[[Coverage], str]) -> Callable[[Score], str]:
    return lambda s: "" if s.coverage is None else show(s.coverage)


INTERVALS: Columns = {
    "prices\ncovered\n%": _cover(lambda c: f"{100.0 * c.price:.1f}"),
    "prices of\ncurtailed\n%": _cover(lambda c: f"{100.0 * c.price_curtailed:.1f}"),
    "acceptances\ncovered\n%": _cover(lambda c: f"{100.0 * c.accepted:.1f}"),
    "acceptances\nof curtailed\n%": _cover(lambda c: f"{100.0 * c.accepted_curtailed:.1f}"),
    "width\nof prices\n/kWh": _cover(lambda c: f"{c.width_per_kwh:.4f}"),
    "width of\nacceptances\n% of rating": _cover(lambda c: f"{100.0 * c.width_share_of_rating:.3f}"),
    "of those\ncurtailed": _cover(lambda c: f"{100.0 * c.width_share_of_rating_curtailed:.2f}"),
}
ROWS: Columns = {
    "rows": lambda s: f"{s.rows}",
    "left out,\nnot optimal": lambda s: f"{s.rows_left_out}",
    "proposals\n% curtailed": lambda s: f"{100.0 * s.curtailed:.1f}",
    "buses\n% fully shed": lambda s: f"{100.0 * s.fully_shed:.2f}",
}


def table(title: str, scores: Scores, columns: Columns) -> Table:
    """Scores as a table, a block of methods for each set."""
    grid = _grid(title, ("set", "method"), columns)
    for name, methods in scores.items():
        for i, (method, found) in enumerate(methods.items()):
            cells = [show(found) for show in columns.values()]
            grid.add_row("" if i else name, method, *cells, end_section=i + 1 == len(methods))
    return grid


def _grid(title: str, names: Sequence[str], numbers: Sequence[str] | Columns) -> Table:
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in names:
        grid.add_column(name, no_wrap=True)
    for name in numbers:
        grid.add_column(name, justify="right", no_wrap=True)
    return grid


def tables(scores: Scores, local: Mapping[str, Score], seconds: Mapping[str, float], pearson: Pearson) -> list[Table]:
    """All tables of the report."""
    both = {**scores, "local view": local}
    sizes = _grid("The sets", ["set"], ROWS)
    for name, methods in both.items():
        sizes.add_row(name, *[show(next(iter(methods.values()))) for show in ROWS.values()])
    with_intervals = {name: {k: s for k, s in methods.items() if s.coverage} for name, methods in both.items()}
    times = _grid("Run time on one thread, medians", ["who"], ["microseconds per query"])
    for who, value in seconds.items():
        times.add_row(who, f"{1e6 * value:,.0f}")
    together = _grid("Pearson's coefficients at each microgrid's bus, training samples", ("bus", "feature"), TARGETS)
    last = None
    for bus, *cells in pearson_cells(pearson):
        if last not in (None, bus):
            together.add_section()
        together.add_row("" if bus == last else bus, *cells)
        last = bus
    return [
        sizes,
        table("Corrections of proposals", both, CORRECTIONS),
        table("What is accepted, and whether a proposal is curtailed", both, ACCEPTANCE),
        table("Nodal prices at the microgrids, shedding at all buses", both, PRICES),
        table("Intervals: how many hold the truth, and their mean width", with_intervals, INTERVALS),
        times,
        together,
    ]


def elsewhere(model: DsoTransformer, settings: SurrogateSettings, folder: Path) -> dict[str, Score]:
    """Scores on another feeder: before and after fine-tuning, trained there alone, and plain ones."""
    wanted = settings.report.transfer
    dso, train, test, models = transfer(model, settings, folder)
    rating_kw = build_microgrids(load_scenario(wanted.scenario)).rating_kw
    any_model = next(iter(models.values()))
    methods: dict[str, Method] = {name: answers_of(there) for name, there in models.items()}
    methods |= plain_methods(train, any_model, rating_kw, wanted.steps, settings.seed)
    found = {}
    for name, method in methods.items():
        # Nothing is calibrated there.
        found[name] = score(test, replace(method(test), intervals=None), rating_kw, dso.trade_bus)
    return found


def report(
    folder: Path,
    model: DsoTransformer,
    dso: OpfDso,
    rating_kw: Float[np.ndarray, " trade"],
    data: Path,
    scenario: Scenario,
    history: Sequence[Mapping[str, float]],
    mlp_steps: int,
    *,
    seed: int = 0,
    days: int = 20,
    others: Scores | None = None,
) -> dict[str, Any]:
    """Evaluate the model; write metrics, tables and figures into `folder/report/`, return the metrics.

    Args:
        data: The data set, whose subset `train` plain methods are fitted to.
        history: The curves of the training.
        days: Held-out days that are played for the local view, if there are so many.
        others: Scores on other feeders, to show with the rest.
    """
    train, solar_factor = load_subset(data, "train"), solar_factors(data, scenario, "train")
    held = json.loads((data / MANIFEST).read_text(encoding="utf-8"))["subsets"]
    sets = {name: load_subset(data, name) for name in SETS if name in held}
    sets["adversarial"] = adversarial(
        model,
        dso,
        sets["test"],
        np.random.default_rng(seed),
        rating_kw=rating_kw,
        lmp_per_kwh=(float(train.lmp_per_kwh.min()), float(train.lmp_per_kwh.max())),
    )
    methods = {TRANSFORMER: answers_of(model), **plain_methods(train, model, rating_kw, mlp_steps, seed)}
    # Where proposals are scaled, so are the microgrids that make them.
    ratings = {name: rating_kw * (held[name]["proposal_scale"] if name in held else 1.0) for name in sets}
    pairs = [(name, method) for name in sets for method in methods]
    scores: dict[str, dict[str, Score]] = {name: {} for name in sets}
    for name, method in tqdm(pairs, desc="report", unit="score", disable=None, leave=False):
        scores[name][method] = score(sets[name], methods[method](sets[name]), ratings[name], dso.trade_bus)
    scores |= {name: dict(found) for name, found in (others or {}).items()}
    local = local_view(model, dso, play(scenario, dso, days=days, seed=seed, held_out=True))
    seconds = run_times(model, dso, sets["test"])
    pearson = pearson_by_bus(train, dso.feeder.bus, dso.trade_bus)
    metrics: dict[str, Any] = _plain(
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "sets": {name: {method: asdict(s) for method, s in found.items()} for name, found in scores.items()},
            "local_view": {who: asdict(s) for who, s in local.items()},
            "seconds_per_query": seconds,
            "pearson_by_bus": pearson,
            "training": [dict(row) for row in history],
        }
    )
    output = folder / "report"
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_whole(output / "metrics.json", lambda path: path.write_text(text, encoding="utf-8"))
    shown = _text(tables(scores, local, seconds, pearson))
    write_whole(output / "tables.txt", lambda path: path.write_text(shown, encoding="utf-8"))
    draw_data_set(
        output,
        train=train,
        solar_factor=solar_factor,
        feeder=dso.feeder,
        trade_bus=dso.trade_bus,
        rating_kw=rating_kw,
    )
    draw_figures(
        output,
        test=sets["test"],
        answers=methods[TRANSFORMER](sets["test"]),
        trade_bus=dso.trade_bus,
        history=history,
        metrics={name: metrics["sets"][name] for name in sets},
    )
    return metrics


def _text(grids: Sequence[Table]) -> str:
    console = Console(width=TABLE_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as captured:
        for grid in grids:
            console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _plain(value: Any) -> Any:
    """The same with null for what is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(settings: SurrogateSettings) -> None:
    """The report of what was trained with these settings, and its tables on the console."""
    folder = Path(settings.output)
    scenario = scenario_from_dict(settings.scenario)
    dso, wanted = build_dso(scenario), settings.report
    model = load_model(folder / WEIGHTS, dso)
    try:
        history = json.loads((folder / CURVES).read_text(encoding="utf-8"))["history"]
    except (OSError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(f"{folder / CURVES} can't be read ({error}): train with this output first") from None
    others = {wanted.transfer.scenario: elsewhere(model, settings, folder / "transfer" / wanted.transfer.scenario)}
    report(
        folder,
        model,
        dso,
        build_microgrids(scenario).rating_kw,
        folder / "data",
        scenario,
        history,
        wanted.mlp_steps,
        seed=settings.seed,
        days=wanted.days,
        others=others,
    )
    console = Console(width=max(Console().width, TABLE_WIDTH))
    console.print((folder / "report" / "tables.txt").read_text(encoding="utf-8"), highlight=False, markup=False)
    console.print(f"wrote {folder / WEIGHTS} and {folder / 'report'}", highlight=False)


@command("surrogate")
def main(cfg: DictConfig) -> None:
    """Report on a finished training."""
    evaluate(settings_from(cfg))


if __name__ == "__main__":
    main()
