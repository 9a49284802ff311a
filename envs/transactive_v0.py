"""Environment `transactive_v0`: `parallel_env`, `env` (AEC, clipping actions) and `raw_env` (AEC)."""

from __future__ import annotations

from typing import Any

from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import ClipOutOfBoundsWrapper

from peergrid.envs.transactive.env import TransactiveMarket

parallel_env = TransactiveMarket


def raw_env(**arguments: Any) -> Any:
    """The environment in PettingZoo's AEC form; the arguments are those of `parallel_env`."""
    return parallel_to_aec(parallel_env(**arguments))


def env(**arguments: Any) -> Any:
    """The AEC form with actions clipped to their space; the arguments are those of `parallel_env`."""
    return ClipOutOfBoundsWrapper(raw_env(**arguments))
