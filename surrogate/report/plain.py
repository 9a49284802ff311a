"""Plain ways to predict the DSO, which the transformer is always shown beside; each is fitted to training samples.

    no curtailment            everything is accepted, at the LMP
    nearest sample            the answer to the training question nearest to this one
    linear regression         corrections and transformed prices, least squares
    MLP                       the same two, a perceptron with as many weights as the transformer
    MLP, price rule           transformed prices from such a perceptron, acceptances from them as in the transformer

All of them keep acceptances between nothing and the proposal, and transformed prices within the range of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from peergrid.surrogate.model import DsoTransformer, restore_price, transform_price
from peergrid.surrogate.questions import Answers, Questions
from peergrid.surrogate.samples import Samples
from peergrid.surrogate.settings import TrainingSettings
from peergrid.surrogate.training import BETAS, acceptance_losses, price_losses

# Distances to so many questions at once: more no longer fit the memory of a small machine.
QUESTIONS_AT_ONCE = 64


Method = Callable[[Samples], Answers]


def plain_methods(
    train: Samples, model: DsoTransformer, rating_kw: Float[np.ndarray, " trade"], mlp_steps: int, seed: int = 0
) -> dict[str, Method]:
    """All of them by name, fitted to the rows that were solved to the tolerance."""
    solved = train.rows(train.status == 0)
    return {
        "no curtailment": no_curtailment,
        "nearest sample": nearest_sample(solved, model),
        "linear regression": linear_regression(solved, model),
        "MLP": mlp(solved, model, rating_kw, mlp_steps, seed, has_price_rule=False),
        "MLP, price rule": mlp(solved, model, rating_kw, mlp_steps, seed, has_price_rule=True),
    }


def no_curtailment(samples: Samples) -> Answers:
    """Everything is accepted at the LMP, and no load is shed."""
    price = np.repeat(samples.lmp_per_kwh[:, None], samples.proposed_kw.shape[1], axis=1)
    return Answers(accepted_kw=samples.proposed_kw, price_per_kwh=price, shed_kw=np.zeros_like(samples.load_kw))


def nearest_sample(train: Samples, model: DsoTransformer) -> Method:
    """Correction, price above the LMP and shedding of the training sample at the least distance, inputs standardised.

    All distances are computed: with so many inputs a k-d tree visits most samples, and takes longer.
    """
    scale = _Scale.of(train)
    known = torch.from_numpy(scale(train))
    squares = known.square().sum(1)
    correction_kw = train.proposed_kw - train.accepted_kw
    above_lmp = train.price_per_kwh[:, _trade_bus(model)] - train.lmp_per_kwh[:, None]

    def answer(samples: Samples) -> Answers:
        asked = torch.from_numpy(scale(samples))
        parts = [asked[i : i + QUESTIONS_AT_ONCE] for i in range(0, len(asked), QUESTIONS_AT_ONCE)]
        # |x - y|^2 less |x|^2, which all candidates share.
        nearest = np.concatenate([torch.addmm(squares, x, known.T, alpha=-2.0).numpy().argmin(1) for x in parts])
        return Answers(
            accepted_kw=_corrected(samples, correction_kw[nearest]),
            price_per_kwh=above_lmp[nearest] + samples.lmp_per_kwh[:, None],
            shed_kw=np.minimum(train.shed_kw[nearest], np.maximum(samples.load_kw, 0.0)),
        )

    return answer


def linear_regression(train: Samples, model: DsoTransformer) -> Method:
    """Least squares from standardised inputs and a constant to corrections and transformed prices."""
    scale, transformed = _Scale.of(train), _transformed_price(train, model)
    n_trade, ends = transformed.shape[1], (transformed.min(), transformed.max())

    def with_constant(samples: Samples) -> Float[np.ndarray, "row feature"]:
        return np.pad(scale(samples).astype(float), ((0, 0), (0, 1)), constant_values=1.0)

    targets = np.concatenate([train.proposed_kw - train.accepted_kw, transformed], axis=1)
    weights = np.linalg.lstsq(with_constant(train), targets, rcond=None)[0]

    def answer(samples: Samples) -> Answers:
        found = (with_constant(samples) @ weights).astype(np.float32)
        return Answers(
            accepted_kw=_corrected(samples, found[:, :n_trade]),
            price_per_kwh=_restored(samples, found[:, n_trade:].clip(*ends)),
        )

    return answer


def mlp(
    train: Samples,
    model: DsoTransformer,
    rating_kw: Float[np.ndarray, " trade"],
    steps: int,
    seed: int = 0,
    *,
    has_price_rule: bool,
) -> Method:
    """A perceptron with two hidden layers, about as many weights as the model, and its targets at the trades.

    Args:
        has_price_rule: It predicts prices alone, and acceptances follow from them as in the model.
    """
    scale = _Scale.of(train)
    x, transformed = torch.from_numpy(scale(train)), torch.from_numpy(_transformed_price(train, model))
    known, accepted = _tensors(train), torch.from_numpy(train.accepted_kw)
    rating = torch.tensor(rating_kw, dtype=torch.float32)
    n_trade, spread = transformed.shape[1], transformed.std()
    ends = float(transformed.min()), float(transformed.max())
    n_out = n_trade if has_price_rule else 2 * n_trade
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _perceptron(x.shape[1], n_out, sum(p.numel() for p in model.parameters()))

    def predict(x: Tensor, inputs: Questions[Tensor]) -> tuple[Tensor, Tensor]:
        found = network(x)
        transformed_price = (found[:, :n_trade] * spread).clamp(*ends)
        if has_price_rule:
            price = restore_price(transformed_price, inputs.lmp_per_kwh)
            return model.network.accepted(inputs, price), transformed_price
        return inputs.proposed_kw - found[:, n_trade:] * rating, transformed_price

    # Batches, rates and losses are those of the model, as far as trades go.
    weights = TrainingSettings()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=weights.learning_rate, weight_decay=weights.weight_decay, betas=BETAS
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(steps), desc="MLP", unit="step", disable=None, leave=False):
        rows = torch.randint(len(x), (weights.batch,), generator=generator)
        accepted_now, transformed_now = predict(x[rows], known.rows(rows))
        lmp = known.lmp_per_kwh[rows]
        price_loss = price_losses(transformed_now, transformed[rows], lmp, spread, weights)
        acceptance_loss = acceptance_losses(accepted_now, accepted[rows], rating, weights)
        optimizer.zero_grad()
        torch.autograd.backward(price_loss + acceptance_loss)
        nn.utils.clip_grad_norm_(network.parameters(), weights.largest_gradient)
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def answer(samples: Samples) -> Answers:
        accepted_kw, transformed_price = predict(torch.from_numpy(scale(samples)), _tensors(samples))
        return Answers(
            accepted_kw=_corrected(samples, samples.proposed_kw - accepted_kw.numpy()),
            price_per_kwh=_restored(samples, transformed_price.numpy()),
        )

    return answer


@dataclass(frozen=True, eq=False)
class _Scale:
    """Questions as rows of numbers, standardised by those of training."""

    mean: Float[np.ndarray, " feature"]
    spread: Float[np.ndarray, " feature"]

    @classmethod
    def of(cls, train: Samples) -> _Scale:
        raw = _raw(train)
        spread = raw.std(axis=0)
        return cls(raw.mean(axis=0), np.where(spread > 1e-9, spread, 1.0))

    def __call__(self, samples: Samples) -> Float[np.ndarray, "row feature"]:
        return ((_raw(samples) - self.mean) / self.spread).astype(np.float32)


def _raw(samples: Samples) -> Float[np.ndarray, "row feature"]:
    columns = (
        samples.load_kw,
        samples.load_kvar,
        samples.proposed_kw,
        samples.lmp_per_kwh[:, None],
        np.log(np.maximum(samples.c_ls_per_kw2h, 1e-6))[:, None],
        np.log(samples.lambda_corr_per_kw2h)[:, None],
    )
    return np.concatenate(columns, axis=1).astype(float)


def _perceptron(n_in: int, n_out: int, n_weights: int) -> nn.Sequential:
    # Two hidden layers of h need h^2 + (n_in + n_out + 2) h + n_out weights.
    half = (n_in + n_out + 2) / 2.0
    hidden = round(math.sqrt(half * half + max(n_weights - n_out, 0)) - half)
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, n_out)
    )


def _tensors(samples: Samples) -> Questions[Tensor]:
    return samples.questions.each(lambda values: torch.from_numpy(np.ascontiguousarray(values)))


def _trade_bus(model: DsoTransformer) -> np.ndarray:
    return model.network.trade_bus.numpy()


def _transformed_price(samples: Samples, model: DsoTransformer) -> Float[np.ndarray, "row trade"]:
    price, lmp = (torch.from_numpy(np.ascontiguousarray(x)) for x in (samples.price_per_kwh, samples.lmp_per_kwh))
    return transform_price(price, lmp)[:, model.network.trade_bus].numpy()


def _restored(samples: Samples, transformed_price: Float[np.ndarray, "row trade"]) -> Float[np.ndarray, "row trade"]:
    lmp = torch.from_numpy(np.ascontiguousarray(samples.lmp_per_kwh))
    return restore_price(torch.from_numpy(transformed_price), lmp).numpy()


def _corrected(samples: Samples, correction_kw: Float[np.ndarray, "row trade"]) -> Float[np.ndarray, "row trade"]:
    proposed = samples.proposed_kw
    return (proposed - correction_kw).clip(np.minimum(proposed, 0.0), np.maximum(proposed, 0.0))
