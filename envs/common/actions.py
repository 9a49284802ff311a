"""Actions that come from outside: of the right shape, numbers, and finite, or an error that names every fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from peergrid.grid.errors import InvalidAction, UnknownName

RENDER_MODES = ("ansi", "rgb_array")
T = TypeVar("T")


def check_actions(actions: Any, shape: tuple[int, ...], axes: str = "row, agent, number") -> None:
    """Raise InvalidAction unless the actions are numbers of that shape, none of them NaN."""
    actions = as_array(actions)
    if actions.shape != shape:
        raise InvalidAction(f"actions have shape {actions.shape}, not {shape} ({axes})")
    if actions.dtype.kind not in "iuf":
        raise InvalidAction(f"actions are of type {actions.dtype}, not real numbers")
    is_finite = np.isfinite(as_float64(actions))
    if not is_finite.all():
        raise InvalidAction(f"actions are not finite at ({axes}) {np.argwhere(~is_finite)[:5].tolist()}")


def of_agent(known: Mapping[str, T], agent: str) -> T:
    """What is known of an agent.

    Raises:
        UnknownName: There is no such agent.
    """
    if agent not in known:
        raise UnknownName("agent", agent, known)
    return known[agent]


def arrays_of(actions: Mapping[str, Any], n_numbers: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The actions of all agents as float arrays.

    Args:
        n_numbers: Who must act, and how many numbers each action has.

    Raises:
        InvalidAction: An agent without action, an unknown agent, a wrong shape, or NaN.
    """
    faults = [f"no action for {a}" for a in n_numbers if a not in actions]
    faults += [f"unknown agent {a!r}" for a in actions if a not in n_numbers]
    given = {a: as_array(actions.get(a, np.zeros(n))) for a, n in n_numbers.items()}
    for agent, action in given.items():
        n = n_numbers[agent]
        if action.shape != (n,) or action.dtype.kind not in "iuf":
            what = f"{n} number{'s' if n > 1 else ''}"
            faults.append(f"action of {agent} has shape {action.shape} and type {action.dtype}, not {what}")
        elif not np.isfinite(as_float64(action)).all():
            faults.append(f"action of {agent} is not finite: {action.tolist()}")
    if faults:
        raise InvalidAction("; ".join(faults))
    return {agent: action.astype(np.float64) for agent, action in given.items()}


def as_array(actions: Any) -> np.ndarray:
    """The array of what was given; nothing, which is no number, where lists of several lengths make none."""
    try:
        return np.asarray(actions)
    except ValueError:
        return np.array(None)


def as_float64(actions: np.ndarray) -> np.ndarray:
    """The numbers in double precision, infinite where a longer type holds larger ones."""
    with np.errstate(over="ignore"):
        return actions.astype(np.float64)


def check_render_mode(render_mode: str | None) -> None:
    """Raise UnknownName unless it is one of ours, or None."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise UnknownName("render mode", render_mode, RENDER_MODES)
