"""What `conf/surrogate.yaml` sets: the sizes of data set, model, training and report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from peergrid.grid.errors import PeergridError, raise_faults
from peergrid.surrogate.model import ModelConfig
from peergrid.surrogate.sampling import Sampling

UNSEEN_HOURS = (4, 12, 19)
KNOWN_HOURS = tuple(h for h in range(24) if h not in UNSEEN_HOURS)


@dataclass
class DataSettings:
    """How many days each subset has; every day gives a sample per hour."""

    train_days: int = 12000
    other_days: int = 300
    shard_days: int = 200


@dataclass
class TrainingSettings:
    """How the weights are found."""

    steps: int = 8000
    batch: int = 512
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 1e-4
    largest_gradient: float = 1.0
    price_weight: float = 0.5
    acceptance_weight: float = 5.0
    shedding_weight: float = 0.2
    spread_weight: float = 0.1
    check_every: int = 500
    patience: int = 10
    coverage: float = 0.9


@dataclass
class TransferSettings:
    """The test on another feeder: the encoder without further training, and after some steps of it."""

    scenario: str = "ieee69"
    train_days: int = 1000
    steps: int = 600


@dataclass
class ReportSettings:
    """The parts of the report that take time."""

    wanted: bool = True
    mlp_steps: int = 8000
    days: int = 20
    transfer: TransferSettings = field(default_factory=TransferSettings)


@dataclass
class SurrogateSettings:
    """What `conf/surrogate.yaml` sets."""

    scenario: dict[str, Any] = field(default_factory=dict)
    output: str = "outputs/surrogate/ieee33"
    seed: int = 0
    workers: int = 0
    threads: int = 0
    device: str = "cpu"
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    report: ReportSettings = field(default_factory=ReportSettings)


def subsets(data: DataSettings) -> dict[str, Sampling]:
    """The subsets of a data set: to learn from, to calibrate with, to test on, and to test on what is different."""

    held_out = Sampling(days=data.other_days, held_out_days=True, hours=KNOWN_HOURS)
    return {
        "train": Sampling(days=data.train_days, hours=KNOWN_HOURS),
        "validation": Sampling(days=data.other_days, hours=KNOWN_HOURS),
        "calibration": Sampling(days=2 * data.other_days, hours=KNOWN_HOURS),
        "test": held_out,
        "unseen hours": replace(held_out, hours=UNSEEN_HOURS, days=4 * data.other_days),
        "load x1.2": replace(held_out, load_scale=(0.96, 1.32)),
        "load x0.6": replace(held_out, load_scale=(0.48, 0.66)),
        "size x2": replace(held_out, proposal_scale=2.0),
        "size x4": replace(held_out, proposal_scale=4.0),
    }


def settings_from(cfg: DictConfig) -> SurrogateSettings:
    """Hydra's configuration as settings; unknown keys, wrong types and impossible numbers fail."""
    settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SurrogateSettings), cfg))
    assert isinstance(settings, SurrogateSettings)
    model, training, data = settings.model, settings.training, settings.data
    numbers = {f"model.{name}": value for name, value in vars(model).items()}
    numbers |= {f"data.{name}": value for name, value in vars(data).items()}
    names = ("steps", "batch", "warmup_steps", "check_every", "patience")
    numbers |= {f"training.{name}": getattr(training, name) for name in names}
    faults = [f"{name} is {value}, below 1" for name, value in numbers.items() if value < 1]
    if model.heads > 0 and model.width % model.heads:
        faults.append(f"model.width is {model.width}, no multiple of model.heads, {model.heads}")
    raise_faults(PeergridError, "settings", faults)
    return settings
