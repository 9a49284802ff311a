"""How the transformer learns: its losses, and a training that can be stopped and resumed.

The same settings on a CPU with the same number of threads give the same weights, with or without interruptions.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from peergrid.grid.dso import OpfDso
from peergrid.grid.errors import InvalidCheckpoint, InvalidDataset
from peergrid.grid.files import write_whole
from peergrid.surrogate.model import (
    PARTS,
    DsoTransformer,
    ModelConfig,
    Outputs,
    restore_price,
    transform_price,
)
from peergrid.surrogate.questions import Questions
from peergrid.surrogate.samples import Samples
from peergrid.surrogate.settings import TrainingSettings

UNFINISHED = "training.pt"
CURVES = "training.json"
BETAS = (0.9, 0.98)  # of AdamW
PRICE_UNIT_PER_KWH = 0.1
GRADIENTS_OF_PARTS = {part: f"gradient_norm_{part}" for part in PARTS}  # as the curves call them


@dataclass(frozen=True, eq=False)
class Tensors:
    """What the model learns from: questions, and those parts of their answers that it predicts."""

    inputs: Questions[Tensor]
    accepted_kw: Tensor
    transformed_price: Tensor
    shed_share: Tensor

    @classmethod
    def of(cls, samples: Samples, device: torch.device) -> Tensors:
        """The rows that were solved to the tolerance."""
        samples = samples.rows(samples.status == 0)

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        inputs = samples.questions.each(tensor)
        load = np.maximum(samples.load_kw, 0.0)
        share = np.divide(samples.shed_kw, load, out=np.zeros_like(load), where=load > 1e-3).clip(0.0, 1.0)
        transformed = transform_price(tensor(samples.price_per_kwh), inputs.lmp_per_kwh)
        return cls(inputs, tensor(samples.accepted_kw), transformed, tensor(share))

    def __len__(self) -> int:
        return len(self.transformed_price)

    def all(self) -> tuple[Tensor, ...]:
        """Every tensor."""
        return (*self.inputs.columns().values(), self.accepted_kw, self.transformed_price, self.shed_share)

    def rows(self, chosen: Any) -> Tensors:
        """Some of the rows."""
        return Tensors(
            self.inputs.rows(chosen), self.accepted_kw[chosen], self.transformed_price[chosen], self.shed_share[chosen]
        )


def losses(
    model: DsoTransformer, outputs: Outputs, known: Tensors, rating_kw: Tensor, weights: TrainingSettings
) -> Tensor:
    """Errors of transformed prices (twice at the trades' buses), prices, acceptances, shedding and stated spreads."""
    said, true = outputs.transformed_price, known.transformed_price
    lmp, scale, at_trades = known.inputs.lmp_per_kwh, model.target_scale, model.network.trade_bus
    price = price_losses(said, true, lmp, scale, weights) + _huber((said - true)[:, at_trades] / scale, 0.1)
    acceptance = acceptance_losses(outputs.accepted_kw, known.accepted_kw, rating_kw, weights)
    shedding = F.binary_cross_entropy(outputs.shed_share.clamp(1e-6, 1 - 1e-6), known.shed_share)
    # A Laplace likelihood of the errors as they are: it teaches the spread alone.
    off = (said - true).detach().abs()
    likelihood = (torch.log(outputs.spread) + off / outputs.spread).mean()
    return price + acceptance + weights.shedding_weight * shedding + weights.spread_weight * likelihood


def price_losses(said: Tensor, true: Tensor, lmp_per_kwh: Tensor, scale: Tensor, weights: TrainingSettings) -> Tensor:
    """Errors of transformed prices `[row, place]`, and of the prices themselves."""
    prices = (restore_price(said, lmp_per_kwh) - restore_price(true, lmp_per_kwh)) / PRICE_UNIT_PER_KWH
    return _huber((said - true) / scale, 0.1) + weights.price_weight * _huber(prices, 1.0)


def acceptance_losses(said_kw: Tensor, true_kw: Tensor, rating_kw: Tensor, weights: TrainingSettings) -> Tensor:
    """Errors of what is accepted `[row, trade]`, in shares of the ratings."""
    return weights.acceptance_weight * _huber((said_kw - true_kw) / rating_kw, 0.02)


def _huber(error: Tensor, beta: float) -> Tensor:
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=beta)


@dataclass
class Progress:
    """Where a training stands, with all that is needed to resume it."""

    step: int
    history: list[dict[str, float]]
    best_loss: float
    best_weights: dict[str, Tensor]


def train(
    model: DsoTransformer,
    known: Tensors,
    validation: Tensors,
    rating_kw: Float[np.ndarray, " trade"],
    settings: TrainingSettings,
    *,
    seed: int,
    folder: Path,
) -> list[dict[str, float]]:
    """Train the model and leave it with the weights that validated best; return the curves.

    A row of them stands for the steps since the last check: means of the training loss and of the norms of its
    gradient, before that is clipped, whole and of each part of the model.

    A checkpoint is written at every check, and a training that was stopped goes on from the last one.

    Raises:
        InvalidCheckpoint: That is damaged, or of other settings.
        InvalidDataset: There are fewer samples than a batch has, or the loss is never finite.
    """
    device = known.transformed_price.device
    rating = torch.tensor(rating_kw, dtype=torch.float32, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay, betas=BETAS)
    per_epoch = len(known) // settings.batch
    if not per_epoch:
        raise InvalidDataset(f"{len(known)} samples to train on are fewer than a batch of {settings.batch}")
    begun = _begun(model, known, validation, settings, seed)
    now = _resumed(folder / UNFINISHED, model, optimizer, begun, device)
    sums = dict.fromkeys(("train_loss", "gradient_norm", *GRADIENTS_OF_PARTS.values()), 0.0)
    order, epoch = torch.zeros(0, dtype=torch.long), -1
    with (
        SummaryWriter(folder / "tensorboard", purge_step=now.step) as board,
        tqdm(total=settings.steps, initial=now.step, desc="training", unit="step", disable=None, leave=False) as bar,
    ):
        while now.step < settings.steps and not _is_stale(now.history, settings.patience):
            if now.step // per_epoch != epoch:
                epoch = now.step // per_epoch
                order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            start = now.step % per_epoch * settings.batch
            batch = known.rows(order[start : start + settings.batch].to(device))
            rate = _learning_rate(now.step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = losses(model, model(batch.inputs), batch, rating, settings)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            of_parts = gradient_norms(model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.largest_gradient)
            optimizer.step()
            now.step += 1
            bar.update()
            # All at once: on a GPU every number that is read waits for the step to end.
            for name, value in zip(sums, torch.stack([loss.detach(), norm, *of_parts]).tolist(), strict=True):
                sums[name] += value
            if now.step % settings.check_every == 0 or now.step == settings.steps:
                n = (now.step - 1) % settings.check_every + 1
                row = {name: total / n for name, total in sums.items()}
                row |= {"validation_loss": validate(model, validation, rating, settings), "learning_rate": rate}
                sums = dict.fromkeys(sums, 0.0)
                for name, value in row.items():
                    board.add_scalar(name, value, now.step)
                now.history.append({"step": float(now.step)} | row)
                if row["validation_loss"] < now.best_loss:
                    now.best_loss = row["validation_loss"]
                    now.best_weights = {name: values.clone() for name, values in model.state_dict().items()}
                _keep(folder / UNFINISHED, now, model, optimizer, begun)
    if not now.best_weights:
        raise InvalidDataset("the training diverged: no check found a finite loss; try a lower learning rate")
    model.load_state_dict(now.best_weights)
    return now.history


def gradient_norms(model: DsoTransformer) -> list[Tensor]:
    """The Euclidean norm of the loss's gradient in the weights of each part of the model, in the order of `PARTS`."""
    norm = torch.linalg.vector_norm
    return [
        norm(torch.stack([norm(weights.grad) for weights in part if weights.grad is not None]))
        for part in model.parts().values()
    ]


def _learning_rate(step: int, settings: TrainingSettings) -> float:
    """A linear warm-up times a cosine decay to zero."""
    rise = min(1.0, (step + 1) / settings.warmup_steps)
    return settings.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))


def _is_stale(history: list[dict[str, float]], patience: int) -> bool:
    found = [row["validation_loss"] for row in history]
    return len(found) > patience and min(found[-patience:]) >= min(found[:-patience])


@torch.no_grad()
def validate(model: DsoTransformer, known: Tensors, rating_kw: Tensor, settings: TrainingSettings) -> float:
    """The mean loss over samples."""
    total = 0.0
    for start in range(0, len(known), 1024):
        batch = known.rows(slice(start, start + 1024))
        total += float(losses(model, model(batch.inputs), batch, rating_kw, settings)) * len(batch)
    return total / len(known)


def _begun(
    model: DsoTransformer, known: Tensors, validation: Tensors, settings: TrainingSettings, seed: int
) -> dict[str, Any]:
    """All that a training depends on; an unfinished one that began with anything else is not resumed."""
    found = hashlib.sha256(repr(model.config).encode())
    for values in (*model.state_dict().values(), *known.all(), *validation.all()):
        found.update(values.cpu().numpy().tobytes())
    return asdict(settings) | {"seed": seed, "model_and_data_sha256": found.hexdigest()}


def _keep(
    path: Path, now: Progress, model: DsoTransformer, optimizer: torch.optim.Optimizer, begun: dict[str, Any]
) -> None:
    content = asdict(now) | {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "begun": begun}
    file = io.BytesIO()  # torch itself doesn't say in so many words that a disk is full
    torch.save(content, file)
    write_whole(path, lambda unfinished: unfinished.write_bytes(file.getvalue()), InvalidCheckpoint)


def _resumed(
    path: Path,
    model: DsoTransformer,
    optimizer: torch.optim.Optimizer,
    begun: dict[str, Any],
    device: torch.device,
) -> Progress:
    if not path.exists():
        return Progress(0, [], math.inf, {})
    again = f"delete {path} to begin anew"
    try:
        # Numbers and plain containers: nothing in it can run.
        found = torch.load(path, weights_only=True, map_location=device)
        if found["begun"] != begun:
            raise InvalidCheckpoint(f"an unfinished training with other settings or data is in the way: {again}")
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        return Progress(found["step"], found["history"], found["best_loss"], found["best_weights"])
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, OSError) as error:
        raise InvalidCheckpoint(f"the unfinished training can't be read ({error}): {again}") from None


def new_model(dso: OpfDso, known: Tensors, config: ModelConfig, seed: int) -> DsoTransformer:
    """An untrained model with the normalisation that these samples need."""
    torch.manual_seed(seed)
    model = DsoTransformer(dso, config).to(known.transformed_price.device)
    first = known.rows(slice(0, 20_000))
    model.normalise(first.inputs, first.transformed_price[:, model.network.trade_bus])
    return model
