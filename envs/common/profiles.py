"""Where a day's loads, sun and prices come from.

A `ProfileSource` draws a `Day` that fits a `DayShape`. `SyntheticProfiles` makes days up from a few numbers and a
random generator; `TableProfiles` reads them from the user's file. Sources number their days from 0, and every tenth is
kept for evaluation.
"""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from peergrid.grid.errors import InvalidProfiles, InvalidScenario, UnknownName, raise_faults
from peergrid.grid.feeder import some

if TYPE_CHECKING:
    import pandas as pd

DAYS_PER_YEAR = 365
# A year of quarters of an hour, and a minute: what is larger or finer fills the memory.
MOST_INTERVALS = 4 * 24 * DAYS_PER_YEAR
LEAST_STEP_HOURS = 1 / 60 - 1e-9
MOST_PARAMETER = 1e6
MIN_CLOUD_INDEX = 0.05
MIN_DEMAND_PU = 0.05

# Hourly means from midnight, of the day's peak.
# fmt: off
DEMAND_SHAPES: dict[str, tuple[float, ...]] = {
    "residential": (.42, .37, .34, .33, .34, .42, .58, .72, .68, .56, .50, .49,
                    .50, .48, .47, .50, .60, .78, .94, 1.0, .97, .86, .70, .54),
    "commercial":  (.30, .28, .27, .27, .28, .33, .45, .64, .82, .91, .95, 1.0,
                    .97, .96, .98, .95, .88, .75, .60, .50, .44, .39, .35, .32),
    "industrial":  (.72, .71, .70, .70, .72, .78, .88, .94, .97, .98, 1.0, .98,
                    .94, .96, .98, .97, .95, .91, .87, .84, .82, .79, .76, .74),
}
# fmt: on


@dataclass(frozen=True, kw_only=True)
class DayShape:
    """What a day must cover: the episode and the intervals that its forecasts look ahead.

    Intervals beyond 24 h belong to the following day. `bus` names the feeder's buses, and `demand_class` has one
    entry per microgrid: "" for one without a demand of its own.
    """

    intervals: int
    step_hours: float
    bus: tuple[str, ...]
    demand_class: tuple[str, ...]

    def __post_init__(self) -> None:
        faults = []
        if self.intervals < 1:
            faults.append(f"intervals is {self.intervals}, not at least 1")
        if not self.bus:
            faults.append("there is no bus")
        if self.intervals > MOST_INTERVALS:
            faults.append(f"intervals and lookahead are {self.intervals} together, above {MOST_INTERVALS}")
        if not LEAST_STEP_HOURS <= self.step_hours <= 24 or abs(24 / self.step_hours - self.intervals_per_day) > 1e-3:
            faults.append(
                f"step_hours is {self.step_hours:g}, which does not divide a day of 24 h, or is below a minute"
            )
        raise_faults(InvalidScenario, "day", faults)

    @property
    def intervals_per_day(self) -> int:
        return round(24 / self.step_hours)

    @property
    def n_bus(self) -> int:
        return len(self.bus)


@dataclass(frozen=True, eq=False, kw_only=True)
class Day:
    """What happens from outside in one episode and its lookahead.

    Attributes:
        load_pu: Base load as a multiple of each bus's nominal load.
        load_forecast_pu: What was forecast for it the day before.
        pv_pu: Available PV as a share of the installed peak.
        pv_forecast_pu: What was forecast for it the day before.
        demand_pu: Reference consumption of each microgrid as a share of its peak, 0 to 1.
        lmp_per_kwh: Real-time price at the substation.
        lmp_day_ahead_per_kwh: The day-ahead price, known before the day begins.
        devices: What a market draws beside it for devices that come and go.
    """

    load_pu: Float[np.ndarray, "interval bus"]
    load_forecast_pu: Float[np.ndarray, "interval bus"]
    pv_pu: Float[np.ndarray, "interval agent"]
    pv_forecast_pu: Float[np.ndarray, "interval agent"]
    demand_pu: Float[np.ndarray, "interval agent"]
    lmp_per_kwh: Float[np.ndarray, " interval"]
    lmp_day_ahead_per_kwh: Float[np.ndarray, " interval"]
    devices: tuple[Any, ...] = ()


@runtime_checkable
class ProfileSource(Protocol):
    """Anything that draws days. The two bounds hold for every draw: scenarios are checked against them.

    A persistence is the share of a deviation from the forecast that is expected to be left an hour later, 0 to 1:
    whoever looks ahead reckons with it.
    """

    @property
    def n_days(self) -> int: ...

    @property
    def max_load_pu(self) -> float: ...

    @property
    def max_lmp_per_kwh(self) -> float: ...

    @property
    def load_persistence(self) -> float: ...

    @property
    def lmp_persistence(self) -> float: ...

    def draw(self, shape: DayShape, day: int, rng: np.random.Generator) -> Day:
        """The day numbered `day`, from 0; whatever is random in it comes from `rng`."""
        ...


def training_days(n_days: int, span: int = 1) -> tuple[int, ...]:
    """The days on which an episode to learn from may begin: those of which none of the `span` days is for evaluation.

    The forecasts that look beyond the last of them may reach into the first hours of an evaluation day.

    Raises:
        InvalidProfiles: The episode is so long that every one would touch an evaluation day.
    """
    days = tuple(
        day for day in range(n_days) if not any(_is_evaluation_day(d % n_days) for d in range(day, day + span))
    )
    if not days:
        raise InvalidProfiles(f"every episode of {span} days touches an evaluation day: make episodes shorter")
    return days


def evaluation_days(n_days: int) -> tuple[int, ...]:
    """The days to measure on, which no training day repeats: the fifth and every tenth after it.

    Raises:
        InvalidProfiles: There are fewer than five days, so none is kept for evaluation.
    """
    days = tuple(day for day in range(n_days) if _is_evaluation_day(day))
    if not days:
        raise InvalidProfiles(
            f"{n_days} days of profiles hold no evaluation day: the fifth and every tenth after it are kept for "
            "evaluation, so give at least 5 days, and 195 for 20 evaluation days"
        )
    return days


def _is_evaluation_day(day: int) -> bool:
    return day % 10 == 4


@dataclass(frozen=True, kw_only=True)
class SyntheticProfiles:
    """Days of a year made up from hourly shapes, a clear sky and autocorrelated noise.

    Shapes are 24 hourly means from midnight; other steps interpolate them at the middle of each interval. A `_std` is a
    share of what it disturbs. An `_hourly_correlation` is that of a noise with itself an hour later, and a
    `_daily_correlation` that of a day with the next. The first intervals of a draw do not depend on how many follow.

    Base load: `load_scale * load_shape * (1 + noise)`, the noise having a part common to the feeder and one of each
    bus, clipped to 0 and `max_load_pu`; the forecast is that without noise.

    Prices: the day-ahead LMP is `lmp_shape` times a lognormal level of the day with mean 1, and the real-time LMP is
    that times (1 + deviation). Both are clipped to `min_lmp_per_kwh` and `max_lmp_per_kwh`.

    Sun: PV is the clear-sky irradiance on the horizontal over 1000 W/m2, at most 1, times a cloud index of 0.05 to 1.
    Losses of the plant are left to its installed peak. A day is clear, partly cloudy or overcast (`sky_probability`),
    which sets the mean of the index (`sky_index`) and how it fluctuates (`sky_index_std`); the share
    `cloud_shared` of the fluctuation's variance is common to all microgrids. The forecast knows the kind of day, not
    the fluctuation, and misjudges the day's level by `forecast_std`. `solar_uncertainty` scales this error of the
    forecast and leaves the weather alone: at 0 the forecast is what happens, above 1 it is worse than that.

    Demand: the shape of the microgrid's class, `DEMAND_SHAPES`, times (1 + noise), clipped to 0.05 and 1.
    """

    # fmt: off
    load_scale: float = 0.9
    load_shape: tuple[float, ...] = (.58, .54, .52, .51, .52, .56, .65, .76, .82, .84, .85, .86,
                                     .85, .83, .82, .83, .88, .95, 1.0, .99, .95, .87, .76, .66)
    load_common_std: float = 0.03
    load_bus_std: float = 0.05
    load_hourly_correlation: float = 0.8
    max_load_pu: float = 0.95

    lmp_shape: tuple[float, ...] = (.070, .065, .062, .060, .062, .070, .090, .110, .115, .105, .095, .088,
                                    .082, .080, .085, .095, .115, .145, .165, .160, .140, .115, .095, .080)
    lmp_level_std: float = 0.10
    lmp_daily_correlation: float = 0.7
    lmp_deviation_std: float = 0.12
    lmp_hourly_correlation: float = 0.6
    min_lmp_per_kwh: float = 0.01
    max_lmp_per_kwh: float = 0.30
    # fmt: on

    latitude_deg: float = 37.0
    longitude_deg: float = -120.0
    altitude_m: float = 100.0
    utc_offset_hours: float = -8.0
    sky_probability: tuple[float, float, float] = (0.5, 0.3, 0.2)
    sky_index: tuple[float, float, float] = (0.95, 0.65, 0.30)
    sky_index_std: tuple[float, float, float] = (0.03, 0.18, 0.10)
    sky_daily_correlation: float = 0.5
    cloud_hourly_correlation: float = 0.6
    cloud_shared: float = 0.85
    forecast_std: float = 0.05
    solar_uncertainty: float = 1.0

    demand_std: float = 0.03
    demand_hourly_correlation: float = 0.7

    def __post_init__(self) -> None:
        check_synthetic(self)

    @property
    def n_days(self) -> int:
        return DAYS_PER_YEAR

    @property
    def load_persistence(self) -> float:
        return self.load_hourly_correlation

    @property
    def lmp_persistence(self) -> float:
        return self.lmp_hourly_correlation

    def draw(self, shape: DayShape, day: int, rng: np.random.Generator) -> Day:
        for name in shape.demand_class:
            if name and name not in DEMAND_SHAPES:
                raise UnknownName("demand class", name, DEMAND_SHAPES)
        rows = _rows(shape, day, self.n_days)
        noise = self._noise(shape, rng)

        def over_day(hourly: tuple[float, ...]) -> Float[np.ndarray, " interval"]:
            return _interpolated(tuple(hourly), shape.intervals, shape.step_hours)

        load_noise = self.load_common_std * noise.load_common + self.load_bus_std * noise.load_bus
        expected_load = self.load_scale * over_day(self.load_shape)[:, None]

        level = np.exp(self.lmp_level_std * noise.lmp_level - self.lmp_level_std**2 / 2)
        lmp_day_ahead = self._within_lmp_bounds(over_day(self.lmp_shape) * level)
        lmp_real_time = self._within_lmp_bounds(lmp_day_ahead * (1 + self.lmp_deviation_std * noise.lmp_deviation))

        kind = self._kind_of_sky(noise.sky)
        expected = np.array(self.sky_index)[kind]
        cloud = np.sqrt(self.cloud_shared) * noise.cloud_common + np.sqrt(1 - self.cloud_shared) * noise.cloud_agent
        index = np.clip(expected + np.array(self.sky_index_std)[kind] * cloud, MIN_CLOUD_INDEX, 1.0)
        forecast_error = expected + self.forecast_std * noise.sky_misjudged - index
        forecast_index = np.clip(index + self.solar_uncertainty * forecast_error, MIN_CLOUD_INDEX, 1.0)
        clear = self._clear_sky_pu(shape.step_hours).ravel()[rows][:, None]

        has_demand = np.array([bool(name) for name in shape.demand_class], dtype=bool)
        of_class = np.array([over_day(DEMAND_SHAPES[name or "residential"]) for name in shape.demand_class])
        demand_shape = of_class.reshape(-1, shape.intervals).T
        demand = np.clip(demand_shape * (1 + self.demand_std * noise.demand), MIN_DEMAND_PU, 1.0)
        return Day(
            load_pu=np.clip(expected_load * (1 + load_noise), 0.0, self.max_load_pu),
            load_forecast_pu=np.clip(np.broadcast_to(expected_load, load_noise.shape), 0.0, self.max_load_pu),
            pv_pu=clear * index,
            pv_forecast_pu=clear * forecast_index,
            demand_pu=demand * has_demand,
            lmp_per_kwh=lmp_real_time,
            lmp_day_ahead_per_kwh=lmp_day_ahead,
        )

    def _noise(self, shape: DayShape, rng: np.random.Generator) -> _Noise:
        n_agent = len(shape.demand_class)
        width = {"load": 1 + shape.n_bus, "lmp": 1, "cloud": 1 + n_agent, "demand": n_agent}
        # One draw, a row per interval: a longer lookahead leaves the earlier intervals as they are.
        white = rng.standard_normal((shape.intervals, 3 + sum(width.values())))
        white_day, white_hour = white[:, :3], white[:, 3:]
        hourly = (
            self.load_hourly_correlation,
            self.lmp_hourly_correlation,
            self.cloud_hourly_correlation,
            self.demand_hourly_correlation,
        )
        correlation = np.repeat([c**shape.step_hours for c in hourly], list(width.values()))
        over_hours = _autocorrelated(white_hour, correlation)
        load, lmp, cloud, demand = np.split(over_hours, np.cumsum(list(width.values()))[:-1], axis=1)
        # What holds for a day comes from the row of its first interval.
        daily = np.array([self.lmp_daily_correlation, self.sky_daily_correlation, 0.0])
        of_day = _autocorrelated(white_day[:: shape.intervals_per_day], daily)
        of_day = np.repeat(of_day, shape.intervals_per_day, axis=0)[: shape.intervals]
        return _Noise(
            load_common=load[:, :1],
            load_bus=load[:, 1:],
            lmp_level=of_day[:, 0],
            lmp_deviation=lmp[:, 0],
            sky=of_day[:, 1:2],
            sky_misjudged=of_day[:, 2:],
            cloud_common=cloud[:, :1],
            cloud_agent=cloud[:, 1:],
            demand=demand,
        )

    def _within_lmp_bounds(self, lmp_per_kwh: Float[np.ndarray, " interval"]) -> Float[np.ndarray, " interval"]:
        return lmp_per_kwh.clip(self.min_lmp_per_kwh, self.max_lmp_per_kwh)

    def _kind_of_sky(self, sky: Float[np.ndarray, "interval 1"]) -> Int[np.ndarray, "interval 1"]:
        """Clear (0), partly cloudy (1) or overcast (2): where a normal variate falls among their probabilities."""
        clear, partly, _ = self.sky_probability
        quantile = np.array([[NormalDist().cdf(x)] for x in sky[:, 0].tolist()])
        kind: Int[np.ndarray, "interval 1"] = (quantile >= clear).astype(int) + (quantile >= clear + partly)
        return kind

    def _clear_sky_pu(self, step_hours: float) -> Float[np.ndarray, "day interval"]:
        return clear_sky_pu(self.latitude_deg, self.longitude_deg, self.altitude_m, self.utc_offset_hours, step_hours)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Noise:
    """Independent normal variates of mean 0 and variance 1, correlated in time only."""

    load_common: Float[np.ndarray, "interval 1"]
    load_bus: Float[np.ndarray, "interval bus"]
    lmp_level: Float[np.ndarray, " interval"]
    lmp_deviation: Float[np.ndarray, " interval"]
    sky: Float[np.ndarray, "interval 1"]
    sky_misjudged: Float[np.ndarray, "interval 1"]
    cloud_common: Float[np.ndarray, "interval 1"]
    cloud_agent: Float[np.ndarray, "interval agent"]
    demand: Float[np.ndarray, "interval agent"]


def check_synthetic(profiles: SyntheticProfiles) -> None:
    """Raise InvalidProfiles naming every parameter that is out of range."""
    faults: list[str] = []
    for name, value in ((f.name, getattr(profiles, f.name)) for f in fields(profiles)):
        length = 24 if name.endswith("_shape") else 3
        if isinstance(value, tuple) and len(value) != length:
            faults.append(f"{name} has {len(value)} values, not {length}")
            continue
        least, most = float(np.min(value)), float(np.max(value))
        if not np.isfinite(value).all():
            faults.append(f"{name} is not finite")
        elif least < 0 and not name.startswith(("latitude", "longitude", "altitude", "utc_offset")):
            faults.append(f"{name} is negative")
        elif most >= 1 and name.endswith("_correlation"):
            faults.append(f"{name} is {most:g}, not below 1")
        elif most > 1 and name in ("sky_probability", "sky_index", "cloud_shared"):
            faults.append(f"{name} is above 1")
        elif max(most, -least) > MOST_PARAMETER:
            faults.append(f"{name} is beyond {MOST_PARAMETER:g}")
    if abs(sum(profiles.sky_probability) - 1) > 1e-9:
        faults.append(f"sky_probability sums to {sum(profiles.sky_probability):g}, not 1")
    if profiles.min_lmp_per_kwh > profiles.max_lmp_per_kwh:
        faults.append("min_lmp_per_kwh is above max_lmp_per_kwh")
    if abs(profiles.utc_offset_hours) > 24:
        faults.append(f"utc_offset_hours is {profiles.utc_offset_hours:g}, not within -24 and 24")
    if abs(profiles.latitude_deg) > 90:
        faults.append(f"latitude_deg is {profiles.latitude_deg:g}, not within -90 and 90")
    raise_faults(InvalidProfiles, "synthetic profiles", faults)


@lru_cache(maxsize=32)
def clear_sky_pu(
    latitude_deg: float, longitude_deg: float, altitude_m: float, utc_offset_hours: float, step_hours: float
) -> Float[np.ndarray, "day interval"]:
    """Irradiance on the horizontal under a clear sky, at the middle of each interval of a year, over 1000 W/m2.

    Source: Haurwitz, Journal of Meteorology 2 (1945) and 3 (1946), as implemented in pvlib.
    """
    # Both take a second to import, which only those who draw synthetic days should pay.
    import pandas as pd
    from pvlib.location import Location

    hours = (np.arange(round(DAYS_PER_YEAR * 24 / step_hours)) + 0.5) * step_hours - utc_offset_hours
    times = pd.DatetimeIndex(np.datetime64("2023-01-01", "ns") + (hours * 3600e9).astype("timedelta64[ns]"), tz="UTC")
    sky = Location(latitude_deg, longitude_deg, altitude=altitude_m).get_clearsky(times, model="haurwitz")
    ghi_w_per_m2: Float[np.ndarray, " year"] = sky["ghi"].to_numpy(np.float64)
    table = np.clip(ghi_w_per_m2 / 1000.0, 0.0, 1.0).reshape(DAYS_PER_YEAR, -1)
    table.setflags(write=False)
    return table


def _autocorrelated(
    white: Float[np.ndarray, "interval process"], correlation: Float[np.ndarray, " #process"]
) -> Float[np.ndarray, "interval process"]:
    """Stationary AR(1) processes of variance 1: x_t = correlation x_(t-1) + sqrt(1 - correlation^2) white_t."""
    x: Float[np.ndarray, "interval process"] = np.sqrt(1.0 - correlation**2) * white
    x[0] = white[0]
    for t in range(1, len(x)):
        x[t] += correlation * x[t - 1]
    return x


@lru_cache(maxsize=64)
def _interpolated(hourly: tuple[float, ...], intervals: int, step_hours: float) -> Float[np.ndarray, " interval"]:
    """An hourly shape at the middle of each interval, over midnight where the day goes on."""
    # The mean of an hour stands at its middle, so that hourly intervals get exactly the hourly values.
    position = (np.arange(intervals) + 0.5) * step_hours - 0.5
    before = np.floor(position).astype(int)
    weight, values = position - before, np.array(hourly)
    curve: Float[np.ndarray, " interval"] = (1 - weight) * values[before % 24] + weight * values[(before + 1) % 24]
    curve.setflags(write=False)
    return curve


def _rows(shape: DayShape, day: int, n_days: int) -> Int[np.ndarray, " interval"]:
    """Positions of a day's intervals in a series of `n_days` days, which goes on from its end to its beginning."""
    if not 0 <= day < n_days:
        raise InvalidProfiles(f"there is no day {day}: the profiles have {n_days} days, numbered from 0")
    rows: Int[np.ndarray, " interval"] = day * shape.intervals_per_day + np.arange(shape.intervals)
    return rows % (n_days * shape.intervals_per_day)


@dataclass(frozen=True)
class TableProfiles:
    """Days read from a CSV or Parquet file, as they are: nothing is random.

    | column                  | unit | range  |                                                                    |
    |-------------------------|------|--------|--------------------------------------------------------------------|
    | `time`                  |      |        | start of the interval, ISO 8601; regular steps, whole days         |
    | `lmp_per_kwh`           | /kWh | 0 to 3 | real-time price at the substation                                  |
    | `lmp_day_ahead_per_kwh` | /kWh | 0 to 3 | optional; the real-time price where there is none                  |
    | `load_pu`               | p.u. | 0 to 3 | load of every bus, of its nominal load                             |
    | `load_pu_<bus>`         | p.u. | 0 to 3 | optional; replaces it at the bus of that name                      |
    | `load_forecast_pu`      | p.u. | 0 to 3 | optional; of every bus; the actual load where there is none        |
    | `pv_pu`                 | p.u. | 0 to 1 | available PV of every microgrid, of its installed peak             |
    | `pv_forecast_pu`        | p.u. | 0 to 1 | optional; the actual PV where there is none                        |
    | `demand_<class>_pu`     | p.u. | 0 to 1 | consumption of its peak, for each class of microgrid that is drawn |

    How long deviations from the forecasts persist is found from the file: nought where it has no forecast.

    Times are what the clock on the wall showed: an offset from UTC is dropped, and a change to or from summer time is
    a fault. The lookahead of the last day goes on with the first. The file is read once, when the source is made; the
    source travels with its data when pickled, and two are equal if path and content are.

    Raises:
        InvalidProfiles: The file cannot be read, or its data are at fault; the message lists every fault.
    """

    path: str | Path
    content_sha256: str = field(init=False, repr=False)
    _table: _Table = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        path = Path(self.path).expanduser()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidProfiles(f"profiles {str(path)!r} cannot be read: {error.strerror}") from error
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "content_sha256", hashlib.sha256(content).hexdigest())
        object.__setattr__(self, "_table", _parse(path, content))

    @property
    def n_days(self) -> int:
        return self._table.n_days

    @property
    def max_load_pu(self) -> float:
        return max(float(values.max()) for name, values in self._table.column.items() if name.startswith("load_"))

    @property
    def max_lmp_per_kwh(self) -> float:
        return max(float(values.max()) for name, values in self._table.column.items() if name.startswith("lmp_"))

    @property
    def load_persistence(self) -> float:
        return self._table.persistence("load_pu", "load_forecast_pu")

    @property
    def lmp_persistence(self) -> float:
        return self._table.persistence("lmp_per_kwh", "lmp_day_ahead_per_kwh")

    def draw(self, shape: DayShape, day: int, rng: np.random.Generator) -> Day:
        check_fit(self, shape)
        rows = _rows(shape, day, self.n_days)
        column = {name: values[rows] for name, values in self._table.column.items()}
        n_agent = len(shape.demand_class)

        def for_each(values: Float[np.ndarray, " interval"], n: int) -> Float[np.ndarray, "interval n"]:
            return np.repeat(values[:, None], n, axis=1)

        load_pu = for_each(column["load_pu"], shape.n_bus)
        for name, bus in self._table.bus_columns.items():
            load_pu[:, shape.bus.index(bus)] = column[name]
        if "load_forecast_pu" in column:
            load_forecast_pu = for_each(column["load_forecast_pu"], shape.n_bus)
        else:
            load_forecast_pu = load_pu.copy()
        demand = [column[f"demand_{name}_pu"] if name else np.zeros(shape.intervals) for name in shape.demand_class]
        return Day(
            load_pu=load_pu,
            load_forecast_pu=load_forecast_pu,
            pv_pu=for_each(column["pv_pu"], n_agent),
            pv_forecast_pu=for_each(column.get("pv_forecast_pu", column["pv_pu"]), n_agent),
            demand_pu=np.array(demand).reshape(n_agent, shape.intervals).T,
            lmp_per_kwh=column["lmp_per_kwh"],
            lmp_day_ahead_per_kwh=column.get("lmp_day_ahead_per_kwh", column["lmp_per_kwh"]).copy(),
        )


def check_fit(profiles: TableProfiles, shape: DayShape) -> None:
    """Raise InvalidProfiles naming everything in which a file does not fit the scenario that wants its days."""
    table = profiles._table
    faults = []
    if round(24 / table.step_hours) != shape.intervals_per_day:
        step = f"{shape.step_hours:g}"
        faults.append(
            f"the file steps by {table.step_hours:g} h and the scenario by {step} h: resample the file to {step} h, "
            f"or set step_hours to {table.step_hours:g}"
        )
    classes = {name for name in shape.demand_class if name}
    faults += [f"column demand_{n}_pu is missing" for n in sorted(classes) if f"demand_{n}_pu" not in table.column]
    faults += [
        f"column {name} belongs to no bus: the feeder has {shape.n_bus}, {some(shape.bus)}"
        for name, bus in table.bus_columns.items()
        if bus not in shape.bus
    ]
    raise_faults(InvalidProfiles, f"profiles {str(profiles.path)!r}", faults)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Table:
    step_hours: float
    column: dict[str, Float[np.ndarray, " row"]]

    @property
    def n_days(self) -> int:
        return round(len(self.column["load_pu"]) * self.step_hours / 24)

    def persistence(self, actual: str, forecast: str) -> float:
        """The share of a relative deviation from the forecast that is left an hour later, by least squares, 0 to 1."""
        if forecast not in self.column:
            return 0.0
        expected = self.column[forecast]
        off = np.divide(self.column[actual], expected, out=np.ones_like(expected), where=expected > 0) - 1.0
        square = float(off[:-1] @ off[:-1])
        of_step = float(off[1:] @ off[:-1]) / square if square > 0 else 0.0
        return float(np.clip(of_step, 0.0, 1.0) ** (1.0 / self.step_hours))

    @property
    def bus_columns(self) -> dict[str, str]:
        return {name: name.removeprefix("load_pu_") for name in self.column if name.startswith("load_pu_")}


_REQUIRED = ("time", "lmp_per_kwh", "load_pu", "pv_pu")

# Column names, largest value, and what a larger one suggests; the smallest value is 0 for all.
_LIMITS = (
    (re.compile(r"lmp(_day_ahead)?_per_kwh"), 3.0, "is it per MWh?"),
    (re.compile(r"load(_forecast)?_pu|load_pu_.+"), 3.0, "looks like kW rather than p.u."),
    (re.compile(r"pv(_forecast)?_pu"), 1.0, "looks like kW rather than a share of the installed peak"),
    (re.compile(r"demand_\w+_pu"), 1.0, "looks like kW rather than a share of the peak"),
)


def _parse(path: Path, content: bytes) -> _Table:
    frame = _read_frame(path, content)
    faults = [f"column {name} is missing" for name in _REQUIRED if name not in frame]
    time, step_hours, time_faults = _read_times(frame)
    faults += time_faults

    column: dict[str, Float[np.ndarray, " row"]] = {}
    for name in frame.columns.drop("time", errors="ignore"):
        limit = next(((most, hint) for pattern, most, hint in _LIMITS if pattern.fullmatch(name)), None)
        if limit is None:
            faults.append(f"column {name} is unknown")
            continue
        most, hint = limit
        column[name] = _numbers(frame[name])
        for bad, what in (
            (~np.isfinite(column[name]), "is missing or not a number"),
            (column[name] < 0, "is negative"),
            (np.isfinite(column[name]) & (column[name] > most), f"is above {most:g} ({hint})"),
        ):
            if bad.any():
                faults.append(f"{name} {what} {_at_rows(bad, time)}")
    raise_faults(InvalidProfiles, f"profiles {str(path)!r}", faults)
    return _Table(step_hours=step_hours, column=column)


def _read_frame(path: Path, content: bytes) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        match path.suffix.lower():
            case ".csv":
                frame = pd.read_csv(io.BytesIO(content), dtype=str)
            case ".parquet":
                # Without pandas' own notes, so that a named index is a column like the others.
                frame = pq.read_table(io.BytesIO(content)).replace_schema_metadata(None).to_pandas()
            case _:
                raise InvalidProfiles(f"profiles {str(path)!r}: the name must end in .csv or .parquet")
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError) as error:
        raise InvalidProfiles(f"profiles {str(path)!r} cannot be read: {error}") from error
    frame.columns = frame.columns.astype(str)
    twice = sorted(set(frame.columns[frame.columns.duplicated()]))
    raise_faults(InvalidProfiles, f"profiles {str(path)!r}", [f"column {name} is there twice" for name in twice])
    return frame


def _numbers(series: pd.Series[Any]) -> Float[np.ndarray, " row"]:
    """The values as floats; NaN where one is missing or, whatever its type, not a number."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(series):
        values: Float[np.ndarray, " row"] = series.to_numpy(np.float64, na_value=np.nan, copy=True)
    else:
        # Python's own reading of numbers: that of pandas 2.3 crashes at an exponent such as 1e3332436601.
        values = np.array([_number(text) for text in series.astype(str)], dtype=np.float64)
    values.setflags(write=False)
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _read_times(frame: pd.DataFrame) -> tuple[Any, float, list[str]]:
    """Wall-clock times, the step in hours (0 if there is none), and all that keeps them from being whole days."""
    import pandas as pd

    if "time" not in frame:
        return np.full(len(frame), np.datetime64("NaT")), 0.0, []
    series = frame["time"]
    if not pd.api.types.is_datetime64_any_dtype(series):
        offset = r"(:\d\d(?:[.,]\d+)?)\s*(?:Z|[+-]\d\d(?::?\d\d)?)$"
        text = series.astype(str).str.strip().str.replace(offset, r"\1", regex=True)
        series = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    time = series.dt.tz_localize(None).to_numpy("datetime64[ns]")

    faults = []
    unread = np.isnat(time)
    if unread.any():
        faults.append(f"time is missing or no ISO timestamp {_at_rows(unread, time)}")
    hours = np.diff(time) / np.timedelta64(1, "h")
    repeated = np.append(False, pd.Series(time).duplicated().to_numpy()[1:]) & ~unread
    if repeated.any():
        faults.append(f"time is there twice {_at_rows(repeated, time)}")
    # The step is what most rows agree on; the others are at fault.
    steps, count = np.unique(hours[hours > 0], return_counts=True)
    if not len(steps):
        return time, 0.0, [*faults, f"there is less than one whole day ({len(time)} rows)"]
    step = float(steps[np.argmax(count)])
    irregular = np.append(False, ~np.isnan(hours) & (np.abs(hours - step) > 1e-6)) & ~repeated
    if irregular.any():
        faults.append(f"time is not {step:g} h after the row before {_at_rows(irregular, time)}")
    per_day = round(24 / step)
    if step > 24 or abs(24 / step - per_day) > 1e-6:
        faults.append(f"time steps by {step:g} h, which does not divide a day of 24 h")
    elif len(time) < per_day:
        faults.append(f"there is less than one whole day ({len(time)} rows of {step:g} h)")
    elif len(time) % per_day:
        faults.append(f"{len(time)} rows of {step:g} h are no whole days: {len(time) % per_day} are left over")
    if not unread[0] and time[0] != time[0].astype("datetime64[D]"):
        faults.append(f"time starts at {_clock(time[0])}, not at 00:00")
    return time, step, faults


def _at_rows(bad: Bool[np.ndarray, " row"], time: Any, most: int = 5) -> str:
    """The first rows at fault, counted from 1 below the header, with their times."""
    rows = np.flatnonzero(bad)
    shown = [f"{row + 1}" if np.isnat(time[row]) else f"{row + 1} ({_clock(time[row])})" for row in rows[:most]]
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"at row{'s' if len(rows) > 1 else ''} {', '.join(shown)}{more}"


def _clock(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]"))
