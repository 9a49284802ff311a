"""The transformer's intervals: wide enough to cover a given share of samples that it was not trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from peergrid.envs.p2p_trading.predictors import Question
from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import OpfDso
from peergrid.surrogate.market import Rollout
from peergrid.surrogate.model import N_GROUPS, VIEWS, DsoTransformer, transform_price
from peergrid.surrogate.predictor import as_tensor
from peergrid.surrogate.questions import questions_of
from peergrid.surrogate.training import Tensors


@torch.no_grad()
def calibrate(model: DsoTransformer, known: Tensors, coverage: float) -> None:
    """Set the intervals for an asker that knows all proposals (split conformal).

    They cover this share of the samples given, on which the model was not trained, in each group.
    """
    ratios, groups = [], []
    at_trades = model.network.trade_bus
    for start in range(0, len(known), 1024):
        batch = known.rows(slice(start, start + 1024))
        outputs = model(batch.inputs, only_trades=True)
        off = (outputs.transformed_price - batch.transformed_price[:, at_trades]).abs()
        ratios.append((off / outputs.spread).flatten())
        groups.append(model.group(batch.inputs, outputs).flatten())
    model.interval[VIEWS.index("full")] = _quantiles(torch.cat(ratios), torch.cat(groups), coverage)


@torch.no_grad()
def calibrate_local(model: DsoTransformer, rollout: Rollout, coverage: float) -> None:
    """Set the intervals for microgrids in the market, which do not know the others' current proposals.

    Those of the interval that begins, and those of later ones, of which forecasts of the day before are known.
    """
    truth = as_tensor(rollout.truth.price_per_kwh)[:, model.network.trade_bus]
    transformed = transform_price(truth, as_tensor(rollout.truth.lmp_per_kwh))
    for view, question in (("local", rollout.question), ("ahead", rollout.early)):
        model.interval[VIEWS.index(view)] = _intervals(model, rollout.public, question, transformed, coverage)


def _intervals(
    model: DsoTransformer, public: Public, question: Question, transformed_price: Tensor, coverage: float
) -> Tensor:
    """The intervals of each group that cover this share of the true transformed prices `[row, trade]`."""
    ratios, groups = [], []
    dso, n_agent = public.dso, len(model.network.trade_bus)
    assert isinstance(dso, OpfDso)
    asked = questions_of(question, dso.penalty).each(as_tensor)
    for start in range(0, len(transformed_price), 256):
        inputs = asked.rows(slice(start * n_agent, (start + 256) * n_agent))
        outputs = model(inputs, only_trades=True)
        own = torch.arange(len(inputs.lmp_per_kwh)) % n_agent
        each = torch.arange(len(own)), own
        off = (outputs.transformed_price[each] - transformed_price[start : start + 256].flatten()).abs()
        ratios.append(off / outputs.spread[each])
        groups.append(model.group(inputs, outputs)[each])
    return _quantiles(torch.cat(ratios), torch.cat(groups), coverage)


def _quantiles(ratio: Tensor, group: Tensor, coverage: float) -> Tensor:
    """The ratio of error to spread that this share of a group stays below; the largest of all for too small a group."""
    found = ratio.max().repeat(N_GROUPS)
    for k in range(N_GROUPS):
        own = torch.sort(ratio[group == k]).values
        rank = math.ceil((len(own) + 1) * coverage)
        if rank <= len(own):
            found[k] = own[rank - 1]
    return found
