"""What is the transformer tried on beside its test sets?

adversarial      questions that were searched to mislead it
local view       what a microgrid would be told in the market, not knowing the others' current proposals
another feeder   the encoder on a network that it was not trained on, before and after some training there
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from peergrid.envs.p2p_trading.predictors import Prediction, oracle
from peergrid.envs.p2p_trading.scenario import build_microgrids, load_scenario
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.market import Rollout
from peergrid.surrogate.model import DsoTransformer
from peergrid.surrogate.predictor import TransformerPredictor, predict
from peergrid.surrogate.questions import Answers
from peergrid.surrogate.report.plain import Method, no_curtailment, plain_methods
from peergrid.surrogate.report.scores import Score, score
from peergrid.surrogate.report.transfer import transfer
from peergrid.surrogate.samples import Samples, label
from peergrid.surrogate.settings import SurrogateSettings

PRICES = ("price_per_kwh", "price_low_per_kwh", "price_high_per_kwh")


def answers_of(model: DsoTransformer) -> Method:
    """The transformer as a method: prices at the trades' buses, shedding at all."""
    at_trades = model.network.trade_bus.numpy()

    def answer(samples: Samples) -> Answers:
        found = predict(model, samples.questions)
        prices = {name: getattr(found, name)[:, at_trades] for name in PRICES}
        return replace(found, **prices)

    return answer


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
        asked = replace(
            worst.questions,
            proposed_kw=(worst.proposed_kw + step_kw).clip(-rating_kw, rating_kw),
            load_kw=start.load_kw * tried_scale[:, None],
            load_kvar=start.load_kvar * tried_scale[:, None],
            lmp_per_kwh=(worst.lmp_per_kwh * np.exp(0.1 * rng.standard_normal(len(start)))).clip(*lmp_per_kwh),
        )
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
    found = predict(model, samples.questions, only_trades=True)
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
        # The exact DSO's intervals are points, of which no coverage is to be told.
        "exact DSO, local view": _told(oracle(question, public)).without_intervals(),
        "transformer, full information": answers_of(model)(truth),
    }
    return {name: score(truth, found, public.rating_kw, dso.trade_bus) for name, found in answers.items()}


def _told(prediction: Prediction) -> Answers:
    """A prediction for one proposal each, as answers."""
    return Answers(**{name: values[:, :, 0, 0] for name, values in vars(prediction).items()})


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
        # No intervals were calibrated there.
        found[name] = score(test, method(test).without_intervals(), rating_kw, dso.trade_bus)
    return found
