"""The trained transformer: kept as a file of numbers, asked by each microgrid before it acts.

What is shipped for a scenario stands in `checkpoints/<scenario>/`: weights, the manifest of the data set that they were
trained on, and the metrics of the report.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question, no_prediction
from peergrid.envs.p2p_trading.scenario import Scenario, build_dso, load_scenario
from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import Coefficient, Dso, OpfDso, Penalty, UncheckedDso
from peergrid.grid.errors import InvalidCheckpoint
from peergrid.surrogate.dataset import network_digest, write_whole
from peergrid.surrogate.model import (
    FEATURES,
    PRICE_BEND_PER_KWH,
    DsoTransformer,
    Inputs,
    ModelConfig,
    as_number,
    unbend,
)

logger = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "checkpoints"
WEIGHTS = "model.safetensors"
FORMAT = "peergrid surrogate 2"
LARGEST_BENT = float(np.arcsinh(10.0 / PRICE_BEND_PER_KWH))
# Rows that go through the network at once: more no longer fit a core's cache.
ROWS_AT_ONCE = 96


@dataclass(frozen=True, eq=False, kw_only=True)
class Predicted:
    """What the transformer says to each question: acceptances, nodal prices, both with intervals, and shedding.

    Prices and shedding are those of the buses that were asked about: all, or the trades'.
    """

    accepted_kw: Float[np.ndarray, "row trade"]
    accepted_low_kw: Float[np.ndarray, "row trade"]
    accepted_high_kw: Float[np.ndarray, "row trade"]
    price_per_kwh: Float[np.ndarray, "row place"]
    price_low_per_kwh: Float[np.ndarray, "row place"]
    price_high_per_kwh: Float[np.ndarray, "row place"]
    shed_kw: Float[np.ndarray, "row place"]


def predict(
    model: DsoTransformer, questions: Mapping[str, np.ndarray], *, only_trades: bool = False, view: str = "full"
) -> Predicted:
    """What the model says to questions: the fields of `Inputs`, by name.

    Args:
        view: One of `VIEWS`: whose intervals.
    """
    known = as_inputs(questions)
    starts = range(0, max(len(known[0]), 1), ROWS_AT_ONCE)
    with torch.inference_mode():
        parts = [_predict(model, Inputs(*[x[s : s + ROWS_AT_ONCE] for x in known]), only_trades, view) for s in starts]
    names = Predicted.__dataclass_fields__
    return Predicted(**{name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(names)})


def as_inputs(questions: Mapping[str, np.ndarray]) -> Inputs:
    """Questions as tensors."""
    return Inputs(*[as_tensor(questions[name]) for name in Inputs._fields])


def _predict(model: DsoTransformer, inputs: Inputs, only_trades: bool, view: str) -> list[np.ndarray]:
    found = model(inputs, only_trades=only_trades)
    at_trades = model.network.trade_bus
    room = model.half_width(inputs, found, view)
    lmp = inputs.lmp_per_kwh
    bent = found.bent_price
    # An interval ends where no price is, unless the prediction itself is beyond.
    low = unbend(torch.maximum(bent - room, bent.clamp_max(-LARGEST_BENT)), lmp)
    high = unbend(torch.minimum(bent + room, bent.clamp_min(LARGEST_BENT)), lmp)
    ends = [low, high] if only_trades else [low[:, at_trades], high[:, at_trades]]
    # A higher price means that more is accepted of an export and less of an import: either way, a larger injection.
    accepted = [model.network.accepted(inputs, end) for end in ends]
    load = inputs.load_kw[:, at_trades] if only_trades else inputs.load_kw
    columns = (found.accepted_kw, *accepted, found.price_per_kwh, low, high, found.shed_share * load.clamp_min(0.0))
    return [column.numpy() for column in columns]


def local_questions(question: Question, penalty: Penalty) -> dict[str, np.ndarray]:
    """What microgrids ask, a row for each that asks, interval ahead and option: what it supposes everybody to propose.

    Raises:
        InvalidQuery: The penalty differs among buses or trades.
    """
    supposed = question.supposed_kw
    n_row, n_agent, n_ahead, n_option, n_trade = supposed.shape

    def for_each(values: np.ndarray) -> np.ndarray:
        """The same for every microgrid that asks, and every option."""
        shape = (n_row, n_agent, n_ahead, n_option, *values.shape[2:])
        by_row = np.broadcast_to(values.astype(np.float32)[:, None, :, None], shape)
        return by_row.reshape(-1, *values.shape[2:])

    def constant(coefficient: Coefficient, name: str) -> np.ndarray:
        return np.full(supposed.size // n_trade, as_number(coefficient, name), dtype=np.float32)

    return {
        "load_kw": for_each(question.load_kw),
        "load_kvar": for_each(question.load_kvar),
        "proposed_kw": supposed.reshape(-1, n_trade),
        "lmp_per_kwh": for_each(question.lmp_per_kwh),
        "lambda_corr_per_kw2h": constant(penalty.lambda_corr_per_kw2h, "lambda_corr_per_kw2h"),
        "c_ls_per_kw2h": constant(penalty.c_ls_per_kw2h, "c_ls_per_kw2h"),
    }


class TransformerPredictor:
    """A predictor for environments: what a microgrid may know in, the operator's response as the model has it out."""

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
        names = Prediction.__dataclass_fields__
        return Prediction(**{name: np.concatenate([getattr(part, name) for part in asked], axis=2) for name in names})

    def _answers(self, question: Question, view: str) -> Prediction:
        found = predict(self.model, local_questions(question, self._penalty), only_trades=True, view=view)

        def own(values: Float[np.ndarray, "row trade"]) -> Float[np.ndarray, "batch agent ahead option"]:
            return np.einsum("bakoa->bako", values.reshape(question.supposed_kw.shape).astype(float)).copy()

        return Prediction(
            accepted_kw=own(found.accepted_kw),
            accepted_low_kw=own(found.accepted_low_kw),
            accepted_high_kw=own(found.accepted_high_kw),
            price_per_kwh=own(found.price_per_kwh),
            price_low_per_kwh=own(found.price_low_per_kwh),
            price_high_per_kwh=own(found.price_high_per_kwh),
        )


def transformer(question: Question, public: Public) -> Prediction:
    """The shipped transformer for the operator of an environment: what `predictor="transformer"` names.

    Raises:
        InvalidCheckpoint: None is shipped for this network, its trades and its rules.
    """
    return shipped_predictor(public.dso)(question, public)


def auto(question: Question, public: Public) -> Prediction:
    """The shipped transformer where there is one for the operator and its microgrids, else no prediction.

    Which it is, is said once in the log for each operator.
    """
    known = public.dso.planner if isinstance(public.dso, UncheckedDso) else public.dso
    if not isinstance(known, OpfDso):
        if type(known) not in _TOLD:
            _TOLD.add(type(known))
            logger.warning("predictor auto: an operator of type %s is not predicted", type(known).__name__)
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
    known = dso.planner if isinstance(dso, UncheckedDso) else dso
    if not isinstance(known, OpfDso):
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


def shipped_file(dso: OpfDso) -> Path | None:
    """The file of weights that are shipped for an operator, if there is one."""
    digest = network_digest(dso)
    files = [SHIPPED / name / WEIGHTS for name in shipped_scenarios()]
    return next((file for file in files if _metadata(file)["network"] == digest), None)


def shipped_scenarios() -> tuple[str, ...]:
    """The scenarios that a trained transformer is shipped for."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS}")))


def load_predictor(path: str | Path, scenario: str | Path | Scenario) -> TransformerPredictor:
    """A predictor from a file of weights, for the scenario that it was trained on.

    Raises:
        InvalidCheckpoint: The file is missing, damaged, or for another network.
    """
    return _read_predictor(Path(path), build_dso(load_scenario(scenario)))


def _read_predictor(path: Path, dso: OpfDso) -> TransformerPredictor:
    model = load_model(path, dso)
    try:
        rating_kw = np.array(json.loads(_metadata(path)["rating_kw"]), dtype=float)
    except (ValueError, TypeError) as error:
        raise InvalidCheckpoint(f"{path} is damaged: its rating_kw can't be read ({error})") from None
    if rating_kw.shape != dso.trade_bus.shape or not np.isfinite(rating_kw).all():
        raise InvalidCheckpoint(f"{path} is damaged: its rating_kw are not {len(dso.trade_bus)} numbers")
    return TransformerPredictor(model, dso, rating_kw)


def save_model(
    path: Path, model: DsoTransformer, dso: OpfDso, rating_kw: Float[np.ndarray, " trade"], about: Mapping[str, Any]
) -> None:
    """Write weights, normalisation and intervals as numbers, with what they are for; nothing in it can run."""
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "features": json.dumps(FEATURES),
        "network": network_digest(dso),
        "feeder": dso.feeder.name,
        "rating_kw": json.dumps(rating_kw.tolist()),
        "about": json.dumps(about),
    }
    tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
    file = save(tensors, metadata | {"sha256": _digest(metadata["config"], tensors)})
    write_whole(path, lambda unfinished: unfinished.write_bytes(file), InvalidCheckpoint)


def load_model(path: Path, dso: OpfDso) -> DsoTransformer:
    """The model in a file, for this operator.

    Raises:
        InvalidCheckpoint: The file is missing, damaged, or for another network or version.
    """
    metadata = _metadata(path)
    if metadata["network"] != network_digest(dso):
        raise InvalidCheckpoint(
            f"{path} was trained for another network: feeder {metadata['feeder']!r} with its trades, limits, "
            f"generators and penalties, not this {dso.feeder.name!r}"
        )
    try:
        model = DsoTransformer(dso, ModelConfig(**json.loads(metadata["config"])))
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InvalidCheckpoint(f"{path} describes no model: {error}") from None
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(found)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InvalidCheckpoint(f"{path} can't be read: {error}") from None
    bad = [name for name, values in found.items() if not torch.isfinite(values).all()]
    if bad:
        raise InvalidCheckpoint(f"{path} holds numbers that are not finite: {', '.join(bad)}")
    if metadata["sha256"] != _digest(metadata["config"], model.state_dict()):
        raise InvalidCheckpoint(f"{path} is damaged: its numbers are not those that were written")
    return model


def as_tensor(values: np.ndarray) -> torch.Tensor:
    """An array as a tensor in single precision, which doesn't share its memory."""
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _digest(config: str, tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].cpu().numpy().tobytes())
    return found.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InvalidCheckpoint(f"{path} can't be read as safetensors: {error}") from None
    if metadata.get("format") != FORMAT:
        raise InvalidCheckpoint(f"{path} is no file of ours: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    lost = [name for name in ("config", "features", "network", "feeder", "rating_kw", "sha256") if name not in metadata]
    if lost:
        raise InvalidCheckpoint(f"{path} is damaged: it does not say its {', '.join(lost)}")
    if metadata["features"] != json.dumps(FEATURES):
        raise InvalidCheckpoint(f"{path} was trained on other features, by another version: train it anew")
    return metadata
