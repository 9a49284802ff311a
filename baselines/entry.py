"""What commands share: settings from Hydra, and a console for tables."""

from __future__ import annotations

from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from peergrid.grid.errors import PeergridError, raise_faults
from peergrid.grid.parts import import_faults

TABLE_WIDTH = 130
COUNTS = ("days", "rounds", "steps", "check_every", "threads")
Settings = TypeVar("Settings")


def settings_from(cfg: DictConfig, schema: type[Settings]) -> Settings:
    """Hydra's configuration as a typed settings object.

    Raises:
        PeergridError: It would import code from outside, or counts something below 1; every fault is named.
    """
    merged = OmegaConf.merge(OmegaConf.structured(schema), cfg)
    settings = OmegaConf.to_object(merged)
    assert isinstance(settings, schema)
    raise_faults(PeergridError, "settings", import_faults(settings) + _too_few(settings))
    return settings


def _too_few(settings: object) -> list[str]:
    known = {name: getattr(settings, name) for name in COUNTS if hasattr(settings, name)}
    return [f"{name} is {value}, below 1" for name, value in known.items() if value < 1]


def console_for_tables() -> Console:
    """A console as wide as its terminal, and at least as wide as our tables."""
    width = Console().width
    return Console(width=max(width, TABLE_WIDTH))
