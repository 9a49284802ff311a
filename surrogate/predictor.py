"""The trained transformer asked by each microgrid before it acts."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float

from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question, no_prediction
from peergrid.envs.p2p_trading.scenario import Scenario, build_dso, load_scenario
from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import Dso, OpfDso
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.surrogate.checkpoint import load_model, load_rating_kw, shipped_file, shipped_scenarios
from peergrid.surrogate.model import PRICE_SCALE_PER_KWH, DsoTransformer, restore_price
from peergrid.surrogate.questions import Answers, Questions, questions_of

logger = logging.getLogger(__name__)
LARGEST_TRANSFORMED = float(np.arcsinh(10.0 / PRICE_SCALE_PER_KWH))  # a price of 10 per kWh above or below the LMP
# Rows that go through the network at once: more no longer fit a core's cache.
ROWS_AT_ONCE = 96
PREDICTION = tuple(f.name for f in fields(Prediction))


def predict(
    model: DsoTransformer, questions: Questions[np.ndarray], *, only_trades: bool = False, view: str = "full"
) -> Answers:
    """What the model says to questions, with intervals.

    Args:
        only_trades: Prices and shedding at the trades' buses alone, which is cheaper than at every bus.
        view: One of `VIEWS`: what the asker knows, and so which intervals hold for it.
    """
    known = questions.each(as_tensor)
    starts = range(0, max(len(known.lmp_per_kwh), 1), ROWS_AT_ONCE)
    with torch.inference_mode():
        parts = [_predict(model, known.rows(slice(s, s + ROWS_AT_ONCE)), only_trades, view) for s in starts]
    return Answers(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _predict(
    model: DsoTransformer, inputs: Questions[torch.Tensor], only_trades: bool, view: str
) -> dict[str, np.ndarray]:
    found = model(inputs, only_trades=only_trades)
    at_trades = model.network.trade_bus
    room = model.half_width(inputs, found, view)
    lmp = inputs.lmp_per_kwh
    transformed = found.transformed_price
    # Ends are kept within 10 per kWh of the LMP, or at the prediction where that is farther away.
    low = restore_price(torch.maximum(transformed - room, transformed.clamp_max(-LARGEST_TRANSFORMED)), lmp)
    high = restore_price(torch.minimum(transformed + room, transformed.clamp_min(LARGEST_TRANSFORMED)), lmp)
    ends = [low, high] if only_trades else [low[:, at_trades], high[:, at_trades]]
    # At a higher price more of an export is accepted and less of an import: the net injection is larger either way.
    accepted_low, accepted_high = (model.network.accepted(inputs, end) for end in ends)
    load = inputs.load_kw[:, at_trades] if only_trades else inputs.load_kw
    columns = {
        "accepted_kw": found.accepted_kw,
        "accepted_low_kw": accepted_low,
        "accepted_high_kw": accepted_high,
        "price_per_kwh": found.price_per_kwh,
        "price_low_per_kwh": low,
        "price_high_per_kwh": high,
        "shed_kw": found.shed_share * load.clamp_min(0.0),
    }
    return {name: column.numpy() for name, column in columns.items()}


def as_tensor(values: np.ndarray) -> torch.Tensor:
    """An array as a tensor in single precision, which doesn't share its memory."""
    return torch.from_numpy(np.array(values, dtype=np.float32))


class TransformerPredictor:
    """A predictor for environments: the operator's response to what microgrids may know, as the model has it."""

    def __init__(self, model: DsoTransformer, dso: OpfDso, rating_kw: Float[np.ndarray, " trade"]) -> None:
        """
        Args:
            rating_kw: Of the microgrids that the model was trained on; others are refused.
        """
        self.model = model
        self.rating_kw = rating_kw
        self._penalty = dso.penalty

    def fits(self, public: Public) -> bool:
        """Whether these are microgrids of the size that it was trained on."""
        same_number = public.rating_kw.shape == self.rating_kw.shape
        return same_number and np.allclose(public.rating_kw, self.rating_kw, rtol=0.01)

    def __call__(self, question: Question, public: Public) -> Prediction:
        if not self.fits(public):
            raise InvalidCheckpoint(
                f"the transformer was trained for microgrids with ratings of {self.rating_kw.tolist()} kW, not "
                f"{public.rating_kw.tolist()}: train another one, or use predictor='oracle'"
            )
        asked = [self._answers(question.between(0, 1), "local")]
        if len(question.lmp_per_kwh[0]) > 1:
            asked.append(self._answers(question.between(1, None), "ahead"))
        return Prediction(
            **{name: np.concatenate([getattr(part, name) for part in asked], axis=2) for name in PREDICTION}
        )

    def _answers(self, question: Question, view: str) -> Prediction:
        found = predict(self.model, questions_of(question, self._penalty), only_trades=True, view=view)

        def own(values: Float[np.ndarray, "row trade"]) -> Float[np.ndarray, "batch agent ahead option"]:
            return np.einsum("bakoa->bako", values.reshape(question.supposed_kw.shape).astype(float)).copy()

        return Prediction(**{name: own(getattr(found, name)) for name in PREDICTION})


def transformer(question: Question, public: Public) -> Prediction:
    """The shipped transformer for the operator of an environment: what `predictor="transformer"` names.

    Raises:
        InvalidCheckpoint: None is shipped for this network, its trades and its rules.
    """
    return shipped_predictor(public.dso)(question, public)


def planner_of(dso: Dso) -> OpfDso | None:
    """The operator itself where it solves an OPF, or the one that it asks and names as its `planner`; else None."""
    found = getattr(dso, "planner", dso)
    return found if isinstance(found, OpfDso) else None


def auto(question: Question, public: Public) -> Prediction:
    """The shipped transformer where there is one for the operator and its microgrids, else no prediction.

    The log names the choice once for each operator.
    """
    known = planner_of(public.dso)
    if known is None:
        kind = type(public.dso)
        if kind not in _TOLD:
            _TOLD.add(kind)
            logger.warning("predictor auto: an operator of type %s is not predicted", kind.__name__)
        return no_prediction(question, public)
    if known not in _CHOSEN:
        _CHOSEN[known] = _choose(known, public)
    return _CHOSEN[known](question, public)


_TOLD: set[type] = set()  # of operators that solve no OPF
_CHOSEN: WeakKeyDictionary[OpfDso, Predictor] = WeakKeyDictionary()


def _choose(dso: OpfDso, public: Public) -> Predictor:
    if shipped_file(dso) is not None:
        found = _shipped_for(dso)
        if found.fits(public):
            logger.info("predictor auto: the transformer that is shipped for feeder %r", dso.feeder.name)
            return found
    logger.warning(
        "predictor auto: no transformer is shipped for feeder %r with these microgrids and rules, so nothing is "
        "predicted; predictor='oracle' asks the operator itself",
        dso.feeder.name,
    )
    return no_prediction


def shipped_predictor(dso: Dso) -> TransformerPredictor:
    """The shipped transformer for an operator; loaded once.

    Raises:
        InvalidCheckpoint: None is shipped for its network, its trades and its rules.
    """
    known = planner_of(dso)
    if known is None:
        raise InvalidCheckpoint("the transformer predicts the DSO that solves an OPF: give another predictor")
    return _shipped_for(known)


def _shipped_for(dso: OpfDso) -> TransformerPredictor:
    if dso not in _LOADED:
        path = shipped_file(dso)
        if path is None:
            raise InvalidCheckpoint(
                f"no transformer is shipped for feeder {dso.feeder.name!r} with these trades, limits and penalties, "
                f"only for scenarios {', '.join(shipped_scenarios())}: train one with `python -m "
                "peergrid.surrogate.train scenario=...` and give predictor=load_predictor(file, scenario), or use "
                "predictor='oracle'"
            )
        _LOADED[dso] = _read_predictor(path, dso)
    return _LOADED[dso]


_LOADED: WeakKeyDictionary[OpfDso, TransformerPredictor] = WeakKeyDictionary()


def load_predictor(path: str | Path, scenario: str | Path | Scenario) -> TransformerPredictor:
    """A predictor from a file of weights, for the scenario that it was trained on.

    Raises:
        InvalidCheckpoint: The file is missing, damaged, or for another network.
    """
    return _read_predictor(Path(path), build_dso(load_scenario(scenario)))


def _read_predictor(path: Path, dso: OpfDso) -> TransformerPredictor:
    return TransformerPredictor(load_model(path, dso), dso, load_rating_kw(path, dso))
