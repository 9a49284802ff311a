"""Devices beside the battery whose power somebody decides in every interval: the one form that all of them have.

    level' = keep level + drift + per_drawn drawn - per_given given,       power = given - drawn

Power is positive where it is given to the bus. The level is what the device keeps: a vehicle's energy, a house's
temperature. Some powers are out of reach (`least_kw`, `most_kw`), some levels are held by limits on the power
(`least_level`, `most_level`), and outside a band every unit of level costs something (`low_level`, `high_level`).

All that others need follows from this form: limits in an interval and the level after it (here), the terms of a convex
plan (`terms.py`), a dynamic program against a price curve (`against_prices.py`), what agents see and are told. So a new
device is a module that says what its numbers are in this form, and a line of the registry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from peergrid.envs.common.entries import Entry
from peergrid.envs.common.profiles import DayShape
from peergrid.envs.devices.registry import DEVICES
from peergrid.grid.errors import UnknownName
from peergrid.grid.parts import resolve


@dataclass(frozen=True, eq=False, kw_only=True)
class Course:
    """What a day brings to a device, interval by interval; of all of a kind, by batch, time and agent.

    Levels are those at the interval's end; `start_level` is that at the day's beginning. `aim_level` is what the device
    goes for, as far as it can, if nobody decides. `told` is what its owner sees beside that. The defaults are a device
    that is not there.
    """

    keep: Float[np.ndarray, "*time"]
    drift: Float[np.ndarray, "*time"]
    per_drawn: Float[np.ndarray, "*time"]
    per_given: Float[np.ndarray, "*time"]
    least_kw: Float[np.ndarray, "*time"]
    most_kw: Float[np.ndarray, "*time"]
    least_level: Float[np.ndarray, "*time"]
    most_level: Float[np.ndarray, "*time"]
    low_level: Float[np.ndarray, "*time"]
    high_level: Float[np.ndarray, "*time"]
    aim_level: Float[np.ndarray, "*time"]
    told: Float[np.ndarray, "*time figure"]
    start_level: Float[np.ndarray, "*batch"]

    def over(self, index: Any) -> Course:
        """Part of it: what an index takes of the axes up to that of the time."""
        values = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != START}
        return Course(**values, start_level=self.start_level)

    def of_agent(self, agent: int) -> Course:
        """That of one microgrid alone."""
        one = slice(agent, agent + 1)
        values = {f.name: getattr(self, f.name)[..., one] for f in fields(self) if f.name != "told"}
        return Course(**values, told=self.told[..., one, :])


START = "start_level"  # the one entry without an axis for the time
ABSENT = {
    **dict.fromkeys(
        ("drift", "per_drawn", "per_given", "least_kw", "most_kw", "aim_level", "told", "start_level"), 0.0
    ),
    **dict.fromkeys(("least_level", "low_level"), -np.inf),
    **dict.fromkeys(("most_level", "high_level"), np.inf),
    "keep": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class Device(ABC):
    """One device at a microgrid's bus: its numbers, as a scenario has them, and what its days are like.

    Abstract: a kind says how it is drawn and what its rating, wear, band and faults are.
    """

    kind: str
    bus: str

    level_name: ClassVar[str]
    level_unit: ClassVar[str]
    level_suffix: ClassVar[str]  # of the info that reports it
    told: ClassVar[tuple[Entry, ...]]
    may_be_negative: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of_kind(cls, values: Mapping[str, Any]) -> type[Device]:
        """The class of a device that configuration describes.

        Raises:
            UnknownName: No kind of that name is registered.
        """
        kind = values.get("kind")
        if kind not in DEVICES:
            raise UnknownName("kind of device", str(kind), DEVICES)
        found: type[Device] = resolve(DEVICES[str(kind)], "kind of device", DEVICES)
        return found

    @property
    @abstractmethod
    def draws_kw(self) -> float:
        """The most that it draws."""

    @property
    def gives_kw(self) -> float:
        """The most that it gives."""
        return 0.0

    @property
    def wear_per_kwh(self) -> float:
        """What every kWh costs that is drawn or given."""
        return 0.0

    @property
    def outside_per_hour(self) -> float:
        """What an hour costs in which its level ends one unit outside its band."""
        return 0.0

    @property
    @abstractmethod
    def span(self) -> tuple[float, float]:
        """The levels between which it usually is: of what is seen of it, and of the grid on which it is planned."""

    @abstractmethod
    def faults(self) -> list[str]:
        """What is wrong with its numbers."""

    @abstractmethod
    def scaled(self, scale: float) -> Device:
        """So many of it as one."""

    @abstractmethod
    def draw(self, shape: DayShape, rng: np.random.Generator) -> tuple[Course, Course]:
        """A day as it will be, and as it was forecast; both start alike."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Fleet:
    """All devices of a kind, at most one for each microgrid; ratings of zero where there is none."""

    kind: type[Device]
    name: str
    has: tuple[bool, ...]
    draws_kw: Float[np.ndarray, " agent"]
    gives_kw: Float[np.ndarray, " agent"]
    wear_per_kwh: Float[np.ndarray, " agent"]
    outside_per_hour: Float[np.ndarray, " agent"]
    low: Float[np.ndarray, " agent"]
    high: Float[np.ndarray, " agent"]

    def of_agent(self, agent: int) -> Fleet:
        """That of one microgrid alone."""
        one = slice(agent, agent + 1)
        arrays = {f.name: getattr(self, f.name)[one] for f in fields(self) if f.name not in ("kind", "name")}
        return Fleet(kind=self.kind, name=self.name, **arrays)


def fleets(devices: Sequence[Device], buses: Sequence[str]) -> tuple[Fleet, ...]:
    """The devices by kind, in the order in which kinds are named first."""
    found = []
    for kind in dict.fromkeys(d.kind for d in devices):
        own = {d.bus: d for d in devices if d.kind == kind}
        at = [own.get(bus) for bus in buses]

        def each(name: str, at: list[Device | None] = at) -> Float[np.ndarray, " agent"]:
            return np.array([getattr(d, name) if d else 0.0 for d in at], dtype=float)

        spans = np.array([d.span if d else (0.0, 1.0) for d in at], dtype=float)
        found.append(
            Fleet(
                kind=type(next(iter(own.values()))),
                name=kind,
                has=tuple(d is not None for d in at),
                draws_kw=each("draws_kw"),
                gives_kw=each("gives_kw"),
                wear_per_kwh=each("wear_per_kwh"),
                outside_per_hour=each("outside_per_hour"),
                low=spans[:, 0],
                high=spans[:, 1],
            )
        )
    return tuple(found)


def draw_courses(
    devices: Sequence[Device], buses: Sequence[str], shape: DayShape, rng: np.random.Generator
) -> tuple[tuple[Course, Course], ...]:
    """A day of every kind, as it will be and as it was forecast, [time, agent].

    Each device draws from a child of the generator, which itself goes on as if there were no devices.
    """
    drawn = [d.draw(shape, child) for d, child in zip(devices, rng.spawn(len(devices)), strict=True)]
    found = []
    for kind in dict.fromkeys(d.kind for d in devices):
        own = [(buses.index(d.bus), both) for d, both in zip(devices, drawn, strict=True) if d.kind == kind]
        day, forecast = (_side_by_side({place: both[k] for place, both in own}, len(buses)) for k in range(2))
        found.append((day, forecast))
    return tuple(found)


def _side_by_side(courses: Mapping[int, Course], n_agent: int) -> Course:
    """Courses of single devices, by microgrid, as one of all."""
    values = {}
    for f in fields(Course):
        of_each = {agent: getattr(course, f.name) for agent, course in courses.items()}
        shape = next(iter(of_each.values())).shape
        values[f.name] = np.full((*shape[:1], n_agent, *shape[1:]), ABSENT[f.name])
        for agent, own in of_each.items():
            values[f.name][(slice(None),) * len(shape[:1]) + (agent,)] = own
    return Course(**values)


def stacked(courses: Sequence[Course]) -> Course:
    """Courses of several days, with a first axis for the days."""
    return Course(**{f.name: np.stack([getattr(c, f.name) for c in courses]) for f in fields(Course)})


# --- an interval ------------------------------------------------------------------------------------------------------


def power_to_reach(
    course: Course, level: Float[np.ndarray, "*batch agent"], wanted_level: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """The power with which an interval ends at this level, or as near to it as the device can."""
    gain = wanted_level - (course.keep * level + course.drift)
    nothing = np.zeros_like(gain)
    drawn_kw = np.divide(gain, course.per_drawn, out=nothing.copy(), where=(gain > 0) & (course.per_drawn > 0))
    given_kw = np.divide(-gain, course.per_given, out=nothing, where=(gain < 0) & (course.per_given > 0))
    reached_kw: Float[np.ndarray, "*batch agent"] = (given_kw - drawn_kw).clip(course.least_kw, course.most_kw)
    return reached_kw


def power_limits(
    course: Course, level: Float[np.ndarray, "*batch agent"]
) -> tuple[Float[np.ndarray, "*batch agent"], Float[np.ndarray, "*batch agent"]]:
    """The least and the most power in an interval, which hold the level within its limits as far as possible."""
    least_kw = power_to_reach(course, level, course.most_level)
    return least_kw, np.maximum(power_to_reach(course, level, course.least_level), least_kw)


def level_after(
    course: Course, level: Float[np.ndarray, "*batch agent"], power_kw: Float[np.ndarray, "*batch agent"]
) -> Float[np.ndarray, "*batch agent"]:
    """The level at an interval's end."""
    drawn, given = course.per_drawn * np.maximum(-power_kw, 0.0), course.per_given * np.maximum(power_kw, 0.0)
    after: Float[np.ndarray, "*batch agent"] = course.keep * level + course.drift + drawn - given
    return after


def running_cost(
    fleet: Fleet,
    course: Course,
    level: Float[np.ndarray, "*batch agent"],
    power_kw: Float[np.ndarray, "*batch agent"],
) -> Float[np.ndarray, "*batch agent"]:
    """Wear, and what it costs that the level ends outside its band, currency per hour."""
    outside = np.maximum(course.low_level - level, 0.0) + np.maximum(level - course.high_level, 0.0)
    cost: Float[np.ndarray, "*batch agent"] = fleet.wear_per_kwh * np.abs(power_kw) + fleet.outside_per_hour * outside
    return cost


def undecided(course: Course, level: Float[np.ndarray, "row agent"]) -> Float[np.ndarray, "row ahead agent"]:
    """What the device draws or gives over the intervals of a course if nobody decides."""
    powers = []
    for k in range(course.keep.shape[-2]):
        now = course.over((slice(None), k))
        least_kw, most_kw = power_limits(now, level)
        powers.append(power_to_reach(now, level, now.aim_level).clip(least_kw, most_kw))
        level = level_after(now, level, powers[-1])
    return np.stack(powers, axis=-2)
