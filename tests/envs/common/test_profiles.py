import hashlib
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from peergrid.envs.common.profiles import (
    DEMAND_SHAPES,
    Day,
    DayShape,
    ProfileSource,
    SyntheticProfiles,
    TableProfiles,
    evaluation_days,
    training_days,
)
from peergrid.grid.errors import InvalidProfiles, InvalidScenario, UnknownName

SHAPE = DayShape(
    intervals=24,
    step_hours=1.0,
    bus=("0", "1", "2", "3", "4"),
    demand_class=("residential", "commercial", "commercial", "residential"),
)
SERIES = [f.name for f in fields(Day) if f.name != "devices"]  # which a market draws


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def year(profiles: SyntheticProfiles, shape: DayShape = SHAPE, seed: int = 0) -> dict[str, np.ndarray]:
    """Every series of every day of a year, stacked as day by interval by whatever."""
    generator = rng(seed)
    days = [profiles.draw(shape, day, generator) for day in range(profiles.n_days)]
    return {name: np.stack([getattr(day, name) for day in days]) for name in SERIES}


@pytest.fixture(scope="module")
def a_year() -> dict[str, np.ndarray]:
    return year(SyntheticProfiles())


@pytest.fixture(scope="module")
def clear_sky() -> np.ndarray:
    """PV of a year without clouds, day by interval."""
    cloudless = SyntheticProfiles(sky_probability=(1.0, 0.0, 0.0), sky_index=(1.0, 1.0, 1.0), sky_index_std=(0.0,) * 3)
    return year(cloudless)["pv_pu"][:, :, 0]


def assert_same(one: Day, other: Day, intervals: slice = slice(None)) -> None:
    for name in SERIES:
        np.testing.assert_array_equal(getattr(one, name)[intervals], getattr(other, name)[intervals], err_msg=name)


def lag_one_correlation(x: np.ndarray) -> float:
    """Of each interval with the next, over rows that are separate days."""
    return float(np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1])


# Days


def test_training_and_evaluation_days_are_disjoint_and_cover_everything():
    training, evaluation = training_days(365), evaluation_days(365)
    assert not set(training) & set(evaluation)
    assert sorted(training + evaluation) == list(range(365))
    assert evaluation[:3] == (4, 14, 24)
    assert len(evaluation_days(195)) == 20


def test_too_few_days_for_an_evaluation_day_are_refused_where_one_is_asked_for():
    assert training_days(4) == (0, 1, 2, 3)
    with pytest.raises(InvalidProfiles, match=r"4 days of profiles hold no evaluation day.*at least 5"):
        evaluation_days(4)
    assert evaluation_days(5) == (4,)


def test_a_day_that_no_clock_has_is_refused_with_every_fault():
    with pytest.raises(InvalidScenario, match=r"intervals is 0.*there is no bus.*step_hours is 0\.7.*24 h"):
        DayShape(intervals=0, step_hours=0.7, bus=(), demand_class=())
    for step in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidScenario, match="step_hours"):
            replace(SHAPE, step_hours=step)


def test_a_step_may_be_rounded_as_one_writes_it():
    five_minutes = replace(SHAPE, step_hours=0.0833333, intervals=300)
    assert five_minutes.intervals_per_day == 288
    assert SyntheticProfiles().draw(five_minutes, 364, rng()).pv_pu.shape == (300, 4)


def test_a_day_whose_series_disagree_in_length_fails_while_testing():
    day = SyntheticProfiles().draw(SHAPE, 0, rng())
    with pytest.raises(Exception, match="Type-check"):
        replace(day, lmp_per_kwh=day.lmp_per_kwh[:-1])
    with pytest.raises(Exception, match="Type-check"):
        replace(day, demand_pu=day.demand_pu[:, :-1])


# Synthetic days


def test_the_same_seed_gives_the_same_day_and_another_seed_another():
    profiles = SyntheticProfiles()
    assert_same(profiles.draw(SHAPE, 100, rng(3)), profiles.draw(SHAPE, 100, rng(3)))
    other = profiles.draw(SHAPE, 100, rng(4))
    day = profiles.draw(SHAPE, 100, rng(3))
    for name in SERIES:
        # What is expected of the load is the same for all: its shape.
        differs = not np.array_equal(getattr(day, name), getattr(other, name))
        assert differs == (name != "load_forecast_pu"), name


def test_the_load_that_is_forecast_is_what_comes_on_average():
    profiles = SyntheticProfiles()
    drawn = [profiles.draw(SHAPE, 100, rng(seed)) for seed in range(400)]
    mean = np.mean([day.load_pu for day in drawn], axis=0)
    np.testing.assert_allclose(mean, drawn[0].load_forecast_pu, rtol=0.012)


@pytest.mark.parametrize("intervals", [1, 8, 24, 32, 60])
def test_a_day_has_one_row_per_interval_one_column_per_bus_or_microgrid(intervals):
    day = SyntheticProfiles().draw(replace(SHAPE, intervals=intervals), 7, rng())
    assert day.load_pu.shape == (intervals, 5)
    assert day.pv_pu.shape == day.pv_forecast_pu.shape == day.demand_pu.shape == (intervals, 4)
    assert day.lmp_per_kwh.shape == day.lmp_day_ahead_per_kwh.shape == (intervals,)
    assert all(getattr(day, name).dtype == np.float64 for name in SERIES)


def test_a_feeder_without_microgrids_still_has_loads_and_prices():
    day = SyntheticProfiles().draw(replace(SHAPE, demand_class=()), 0, rng())
    assert day.pv_pu.shape == day.demand_pu.shape == (24, 0)
    assert (day.load_pu > 0).all()


def test_a_longer_lookahead_leaves_the_day_as_it_is():
    profiles = SyntheticProfiles()
    short, long = (profiles.draw(replace(SHAPE, intervals=n), 10, rng()) for n in (24, 60))
    assert_same(short, long, slice(24))


def test_without_noise_the_day_is_its_shapes_hour_by_hour():
    quiet = SyntheticProfiles(
        load_common_std=0.0, load_bus_std=0.0, lmp_level_std=0.0, lmp_deviation_std=0.0, demand_std=0.0
    )
    day = quiet.draw(replace(SHAPE, intervals=32), 0, rng())
    hour = np.arange(32) % 24
    np.testing.assert_array_equal(day.load_pu, np.repeat(0.9 * np.array(quiet.load_shape)[hour, None], 5, axis=1))
    np.testing.assert_array_equal(day.lmp_day_ahead_per_kwh, np.array(quiet.lmp_shape)[hour])
    np.testing.assert_array_equal(day.lmp_per_kwh, day.lmp_day_ahead_per_kwh)
    np.testing.assert_array_equal(day.demand_pu[:, 0], np.array(DEMAND_SHAPES["residential"])[hour])
    np.testing.assert_array_equal(day.demand_pu[:, 1], np.array(DEMAND_SHAPES["commercial"])[hour])


def test_half_hours_are_interpolated_at_their_middle_and_across_midnight():
    quiet = SyntheticProfiles(lmp_level_std=0.0, lmp_deviation_std=0.0)
    lmp = quiet.draw(replace(SHAPE, intervals=48, step_hours=0.5), 0, rng()).lmp_per_kwh
    # Hourly means .070 (00 h), .065 (01 h), .080 (23 h) stand at half past; the middle of 00:00-00:30 is 00:15.
    np.testing.assert_allclose(lmp[0], 0.75 * 0.070 + 0.25 * 0.080)
    np.testing.assert_allclose(lmp[1], 0.75 * 0.070 + 0.25 * 0.065)
    np.testing.assert_allclose(lmp[47], 0.75 * 0.080 + 0.25 * 0.070)
    np.testing.assert_allclose(lmp.mean(), np.mean(quiet.lmp_shape))


def test_demand_shapes_have_24_hours_and_peak_at_one():
    for name, values in DEMAND_SHAPES.items():
        assert len(values) == 24 and max(values) == 1.0 and min(values) > 0, name
    assert np.argmax(DEMAND_SHAPES["residential"]) >= 17
    assert 8 <= np.argmax(DEMAND_SHAPES["commercial"]) <= 16
    assert min(DEMAND_SHAPES["industrial"]) > max(min(DEMAND_SHAPES[n]) for n in ("residential", "commercial"))


def test_an_unknown_demand_class_is_named_with_those_that_exist():
    with pytest.raises(UnknownName, match=r"no demand class is named 'comercial'. Did you mean 'commercial'"):
        SyntheticProfiles().draw(replace(SHAPE, demand_class=("comercial",)), 0, rng())


def test_a_day_outside_the_year_is_refused():
    for day in (-1, 365):
        with pytest.raises(InvalidProfiles, match=f"no day {day}: the profiles have 365 days"):
            SyntheticProfiles().draw(SHAPE, day, rng())


@pytest.mark.parametrize(
    "wild",
    [
        {},
        {"load_common_std": 0.5, "load_bus_std": 1.0, "lmp_level_std": 1.0, "lmp_deviation_std": 2.0},
        {"sky_index_std": (1.0, 1.0, 1.0), "forecast_std": 1.0, "solar_uncertainty": 3.0, "demand_std": 1.0},
    ],
)
def test_bounds_hold_on_every_day_of_the_year_however_wild_the_noise(wild):
    profiles = SyntheticProfiles(**wild)
    days = year(profiles)
    assert all(np.isfinite(days[name]).all() for name in SERIES)
    assert days["load_pu"].min() >= 0 and days["load_pu"].max() <= profiles.max_load_pu
    for name in ("lmp_per_kwh", "lmp_day_ahead_per_kwh"):
        assert profiles.min_lmp_per_kwh <= days[name].min() and days[name].max() <= profiles.max_lmp_per_kwh
    for name in ("pv_pu", "pv_forecast_pu", "demand_pu"):
        assert days[name].min() >= 0 and days[name].max() <= 1
    assert days["demand_pu"].min() > 0


def test_means_are_those_of_the_shapes(a_year):
    profiles = SyntheticProfiles()
    np.testing.assert_allclose(a_year["load_pu"].mean(), 0.9 * np.mean(profiles.load_shape), rtol=0.01)
    np.testing.assert_allclose(a_year["lmp_per_kwh"].mean(), np.mean(profiles.lmp_shape), rtol=0.03)
    np.testing.assert_allclose(a_year["demand_pu"][:, :, 0].mean(), np.mean(DEMAND_SHAPES["residential"]), rtol=0.01)
    assert 0.15 < a_year["pv_pu"].mean() < 0.21
    # An unbiased forecast, but for clipping.
    np.testing.assert_allclose(a_year["pv_forecast_pu"].mean(), a_year["pv_pu"].mean(), rtol=0.03)


def test_real_time_prices_deviate_from_the_day_ahead_by_the_given_share(a_year):
    deviation = a_year["lmp_per_kwh"] / a_year["lmp_day_ahead_per_kwh"] - 1
    np.testing.assert_allclose(deviation.std(), 0.12, rtol=0.05)
    np.testing.assert_allclose(deviation.mean(), 0.0, atol=0.01)


def test_deviations_are_correlated_from_hour_to_hour_as_asked(a_year):
    price = a_year["lmp_per_kwh"] / a_year["lmp_day_ahead_per_kwh"] - 1
    np.testing.assert_allclose(lag_one_correlation(price), 0.6, atol=0.05)
    load = (a_year["load_pu"] / (0.9 * np.array(SyntheticProfiles().load_shape)[:, None]) - 1)[:, :16, 1]
    np.testing.assert_allclose(lag_one_correlation(load), 0.8, atol=0.05)
    white = year(SyntheticProfiles(lmp_hourly_correlation=0.0))
    assert abs(lag_one_correlation(white["lmp_per_kwh"] / white["lmp_day_ahead_per_kwh"])) < 0.05


def test_quarter_hours_keep_the_correlation_over_an_hour():
    days = year(SyntheticProfiles(), replace(SHAPE, intervals=96, step_hours=0.25))
    deviation = days["lmp_per_kwh"] / days["lmp_day_ahead_per_kwh"] - 1
    np.testing.assert_allclose(np.corrcoef(deviation[:, :-4].ravel(), deviation[:, 4:].ravel())[0, 1], 0.6, atol=0.06)
    np.testing.assert_allclose(deviation.std(), 0.12, rtol=0.06)


def test_buses_share_a_part_of_their_noise_and_have_one_of_their_own(a_year):
    load = a_year["load_pu"][:, 3]  # far below the cap
    expected = 0.03**2 / (0.03**2 + 0.05**2)
    between = np.corrcoef(load.T)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(between.mean(), expected, atol=0.1)
    only_common = year(SyntheticProfiles(load_bus_std=0.0))["load_pu"]
    np.testing.assert_array_equal(only_common, only_common[:, :, :1].repeat(5, axis=2))


def test_prices_of_a_day_share_a_level_that_the_next_day_partly_keeps():
    days = year(SyntheticProfiles(lmp_level_std=0.1), replace(SHAPE, intervals=48))["lmp_day_ahead_per_kwh"]
    level = np.log(days / np.tile(SyntheticProfiles().lmp_shape, 2))
    np.testing.assert_allclose(level[:, :24], level[:, :1].repeat(24, axis=1), atol=1e-12)
    np.testing.assert_allclose(level[:, 0].std(), 0.1, rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(level[:, 0], level[:, 24])[0, 1], 0.7, atol=0.1)


# Sun


def test_nights_are_dark_and_forecast_to_be(a_year, clear_sky):
    for name in ("pv_pu", "pv_forecast_pu"):
        assert (a_year[name][:, [0, 1, 2, 3, 21, 22, 23]] == 0).all()
        assert (a_year[name][clear_sky == 0] == 0).all()
        assert (a_year[name][clear_sky > 0] > 0).all()


def test_the_clear_sky_peaks_at_noon_and_is_higher_in_summer(clear_sky):
    assert set(np.argmax(clear_sky, axis=1)) <= {11, 12}
    june, december = clear_sky[171], clear_sky[354]
    assert 0.95 < june.max() <= 1.0
    assert 0.3 < december.max() < 0.6
    assert np.count_nonzero(june) > np.count_nonzero(december) + 3


def test_the_clear_sky_agrees_with_the_haurwitz_formula_at_noon():
    # At the equator, on the equinox (day 79, 21 March), at longitude 0, the noon hour's middle is 12:30: 7.5 degrees
    # past the zenith, less the equation of time (-7 min, 1.8 degrees).
    equator = SyntheticProfiles(latitude_deg=0.0, longitude_deg=0.0, altitude_m=0.0, utc_offset_hours=0.0)
    cos_zenith = np.cos(np.radians(7.5 - 1.8))
    expected = 1.098 * cos_zenith * np.exp(-0.059 / cos_zenith)
    sky = replace(equator, sky_probability=(1.0, 0.0, 0.0), sky_index=(1.0, 1.0, 1.0), sky_index_std=(0.0,) * 3)
    np.testing.assert_allclose(sky.draw(SHAPE, 79, rng()).pv_pu[12, 0], min(expected, 1.0), atol=2e-3)
    # 30 degrees north, where nothing is clipped.
    cos_zenith *= np.cos(np.radians(30.0))
    north = replace(sky, latitude_deg=30.0).draw(SHAPE, 79, rng()).pv_pu[12, 0]
    np.testing.assert_allclose(north, 1.098 * cos_zenith * np.exp(-0.059 / cos_zenith), atol=5e-3)


def test_without_solar_uncertainty_the_forecast_is_what_happens():
    days = year(SyntheticProfiles(solar_uncertainty=0.0))
    np.testing.assert_array_equal(days["pv_pu"], days["pv_forecast_pu"])


def test_solar_uncertainty_scales_the_forecast_error_and_leaves_the_weather_alone(a_year):
    half = year(SyntheticProfiles(solar_uncertainty=0.5))
    np.testing.assert_array_equal(half["pv_pu"], a_year["pv_pu"])
    error, half_error = (np.std(d["pv_forecast_pu"] - d["pv_pu"]) for d in (a_year, half))
    assert error > 0.03
    np.testing.assert_allclose(half_error, error / 2, rtol=0.05)


def test_microgrids_on_one_feeder_share_their_clouds(a_year, clear_sky):
    by_day = clear_sky > 0.05
    index = a_year["pv_pu"][by_day] / clear_sky[by_day][:, None]
    assert np.corrcoef(index.T).min() > 0.7
    # What is left when the kind of the day, which they share anyway, is one and the same.
    partly = year(SyntheticProfiles(sky_probability=(0.0, 1.0, 0.0)))["pv_pu"]
    index = partly[by_day] / clear_sky[by_day][:, None]
    between = np.corrcoef(index.T)[np.triu_indices(4, 1)]
    assert between.min() > 0.7 and between.max() < 0.95


def test_the_kinds_of_sky_are_as_frequent_as_asked_and_tend_to_last(clear_sky):
    # With clear at 1, partly at 0.5 and overcast at 0.1, noon tells the kind.
    still = SyntheticProfiles(sky_index=(1.0, 0.5, 0.1), sky_index_std=(0.0, 0.0, 0.0))
    noon = np.concatenate([year(still, replace(SHAPE, intervals=48), seed)["pv_pu"][:, [12, 36], 0] for seed in (0, 1)])
    ahead = np.roll(clear_sky[:, 12], -1)
    index = noon / np.tile(np.stack([clear_sky[:, 12], ahead], axis=1), (2, 1))
    for value, share in ((1.0, 0.5), (0.5, 0.3), (0.1, 0.2)):
        np.testing.assert_allclose(np.isclose(index, value).mean(), share, atol=0.06)
    same = np.isclose(index[:, 0], index[:, 1]).mean()
    assert same > 0.5**2 + 0.3**2 + 0.2**2 + 0.08


def test_the_lookahead_is_the_next_day_and_the_year_goes_on_after_its_end():
    still = SyntheticProfiles(sky_probability=(1.0, 0.0, 0.0), sky_index_std=(0.0, 0.0, 0.0))
    for day, following in ((80, 81), (364, 0)):
        two_days = still.draw(replace(SHAPE, intervals=48), day, rng()).pv_pu
        np.testing.assert_array_equal(two_days[24:], still.draw(SHAPE, following, rng()).pv_pu)
        assert not np.array_equal(two_days[:24], two_days[24:])


def test_noise_goes_on_over_midnight():
    days = year(SyntheticProfiles(), replace(SHAPE, intervals=32))
    deviation = days["lmp_per_kwh"] / days["lmp_day_ahead_per_kwh"] - 1
    assert np.corrcoef(deviation[:, 23], deviation[:, 24])[0, 1] > 0.45


# Parameters


def test_synthetic_profiles_hash_by_their_numbers():
    assert hash(SyntheticProfiles()) == hash(SyntheticProfiles())
    assert SyntheticProfiles() != SyntheticProfiles(solar_uncertainty=0.5)
    assert isinstance(SyntheticProfiles(), ProfileSource)


def test_bad_parameters_are_named_all_at_once():
    with pytest.raises(InvalidProfiles) as error:
        SyntheticProfiles(
            load_shape=(1.0,) * 23,
            lmp_shape=(float("nan"),) * 24,
            load_bus_std=-0.1,
            lmp_hourly_correlation=1.0,
            cloud_shared=1.5,
            sky_probability=(0.5, 0.5, 0.5),
            min_lmp_per_kwh=0.5,
            latitude_deg=137.0,
        )
    for fault in (
        "load_shape has 23 values, not 24",
        "lmp_shape is not finite",
        "load_bus_std is negative",
        "lmp_hourly_correlation is 1, not below 1",
        "cloud_shared is above 1",
        "sky_probability sums to 1.5, not 1",
        "min_lmp_per_kwh is above max_lmp_per_kwh",
        "latitude_deg is 137",
    ):
        assert fault in str(error.value)


def test_importing_the_module_loads_neither_pvlib_nor_pandas():
    code = "import sys, peergrid.envs.common.profiles; print(sorted({'pandas', 'pvlib', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Tables


def two_days(step: str = "1h") -> pd.DataFrame:
    time = pd.date_range("2024-03-01", "2024-03-03", freq=step, inclusive="left")
    hour = np.arange(len(time)) * 24 / (len(time) / 2)
    return pd.DataFrame(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M"),
            "lmp_per_kwh": 0.1 + 0.001 * hour,
            "lmp_day_ahead_per_kwh": 0.1 + 0.002 * hour,
            "load_pu": 0.5 + 0.01 * hour / 3,
            "load_pu_2": 0.25 + 0.01 * hour,
            "pv_pu": np.maximum(0.0, np.sin((hour - 6) * np.pi / 12)),
            "pv_forecast_pu": np.maximum(0.0, 0.9 * np.sin((hour - 6) * np.pi / 12)),
            "demand_residential_pu": 0.3 + 0.01 * hour,
            "demand_commercial_pu": 0.9 - 0.01 * hour,
        }
    )


def saved(frame: pd.DataFrame, folder, name: str = "profiles.csv"):
    path = folder / name
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def fault_of(frame: pd.DataFrame, folder) -> str:
    with pytest.raises(InvalidProfiles) as error:
        TableProfiles(saved(frame, folder))
    return str(error.value)


def test_a_table_gives_its_own_numbers_back(tmp_path):
    frame = two_days()
    profiles = TableProfiles(saved(frame, tmp_path))
    assert isinstance(profiles, ProfileSource)
    assert profiles.n_days == 2
    day = profiles.draw(SHAPE, 1, rng())
    second = frame.iloc[24:]
    np.testing.assert_array_equal(day.lmp_per_kwh, second["lmp_per_kwh"])
    np.testing.assert_array_equal(day.lmp_day_ahead_per_kwh, second["lmp_day_ahead_per_kwh"])
    for bus, name in enumerate(["load_pu", "load_pu", "load_pu_2", "load_pu", "load_pu"]):
        np.testing.assert_array_equal(day.load_pu[:, bus], second[name])
    for agent, name in enumerate(SHAPE.demand_class):
        np.testing.assert_array_equal(day.demand_pu[:, agent], second[f"demand_{name}_pu"])
        np.testing.assert_array_equal(day.pv_pu[:, agent], second["pv_pu"])
        np.testing.assert_array_equal(day.pv_forecast_pu[:, agent], second["pv_forecast_pu"])


def test_how_long_deviations_persist_is_found_from_the_file(tmp_path):
    frame, draws = two_days(), np.random.default_rng(0)
    off = np.zeros(len(frame))
    for k in range(1, len(off)):
        off[k] = 0.7 * off[k - 1] + 0.05 * draws.standard_normal()
    frame["lmp_per_kwh"] = frame["lmp_day_ahead_per_kwh"] * (1 + off)
    profiles = TableProfiles(saved(frame, tmp_path))
    slope = off[1:] @ off[:-1] / (off[:-1] @ off[:-1])
    assert profiles.lmp_persistence == pytest.approx(slope) and 0.5 < slope < 0.9
    assert TableProfiles(saved(frame.drop(columns="lmp_day_ahead_per_kwh"), tmp_path)).lmp_persistence == 0.0
    halves = frame.assign(time=pd.date_range("2024-01-01", periods=48, freq="30min").astype(str))
    # What is left after half an hour is left twice over after an hour.
    assert TableProfiles(saved(halves, tmp_path)).lmp_persistence == pytest.approx(slope**2)
    frame["lmp_per_kwh"] = frame["lmp_day_ahead_per_kwh"]
    assert TableProfiles(saved(frame, tmp_path)).lmp_persistence == 0.0


def test_the_last_days_lookahead_goes_on_with_the_first(tmp_path):
    profiles = TableProfiles(saved(two_days(), tmp_path))
    long = profiles.draw(replace(SHAPE, intervals=32), 1, rng())
    assert_same(replace(long, **{n: getattr(long, n)[24:] for n in SERIES}), profiles.draw(SHAPE, 0, rng()), slice(8))


def test_a_table_is_the_same_for_every_seed_and_leaves_the_generator_alone(tmp_path):
    profiles, generator = TableProfiles(saved(two_days(), tmp_path)), rng(5)
    assert_same(profiles.draw(SHAPE, 0, generator), profiles.draw(SHAPE, 0, rng(6)))
    assert generator.random() == rng(5).random()


def test_changing_a_drawn_day_does_not_change_the_table(tmp_path):
    frame = two_days().drop(columns=["lmp_day_ahead_per_kwh", "pv_forecast_pu"])
    profiles = TableProfiles(saved(frame, tmp_path))
    day = profiles.draw(SHAPE, 0, rng())
    day.lmp_per_kwh[:] = day.pv_pu[:] = day.load_pu[:] = day.demand_pu[:] = 9.0
    assert day.lmp_day_ahead_per_kwh.max() < 1 and day.pv_forecast_pu.max() <= 1
    assert profiles.draw(SHAPE, 0, rng()).load_pu.max() < 1


def test_csv_and_parquet_give_the_same_day(tmp_path):
    frame = two_days()
    csv = TableProfiles(saved(frame, tmp_path))
    texts = TableProfiles(saved(frame, tmp_path, "texts.parquet"))
    stamps = frame.assign(time=pd.to_datetime(frame["time"]).dt.tz_localize("Europe/Berlin"))
    zoned = TableProfiles(saved(stamps, tmp_path, "zoned.parquet"))
    indexed = TableProfiles(saved(stamps.set_index("time"), tmp_path, "indexed.parquet"))
    for other in (texts, zoned, indexed):
        assert_same(csv.draw(SHAPE, 1, rng()), other.draw(SHAPE, 1, rng()))


@pytest.mark.parametrize("offset", ["Z", "+01:00", ":00Z", ":00.000-0800", ""])
def test_times_are_those_on_the_wall_whatever_the_offset(tmp_path, offset):
    frame = two_days()
    frame["time"] += offset
    assert TableProfiles(saved(frame, tmp_path)).n_days == 2


def test_without_forecast_columns_the_forecast_is_what_happens(tmp_path):
    frame = two_days().drop(columns=["lmp_day_ahead_per_kwh", "pv_forecast_pu"])
    day = TableProfiles(saved(frame, tmp_path)).draw(SHAPE, 0, rng())
    np.testing.assert_array_equal(day.lmp_day_ahead_per_kwh, day.lmp_per_kwh)
    np.testing.assert_array_equal(day.pv_forecast_pu, day.pv_pu)


def test_the_bounds_of_a_table_are_the_largest_of_its_data(tmp_path):
    frame = two_days()
    frame.loc[30, "load_pu_2"] = 2.5
    frame.loc[31, "lmp_day_ahead_per_kwh"] = 1.75
    profiles = TableProfiles(saved(frame, tmp_path))
    assert profiles.max_load_pu == 2.5
    assert profiles.max_lmp_per_kwh == 1.75


def test_a_table_is_known_by_path_and_content_and_travels_without_its_file(tmp_path):
    path = saved(two_days(), tmp_path)
    one, same = TableProfiles(path), TableProfiles(str(path))
    assert one == same and hash(one) == hash(same)
    assert one.content_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    saved(two_days().assign(load_pu=0.5), tmp_path)
    assert TableProfiles(path) != one
    path.unlink()
    copy = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert_same(copy.draw(SHAPE, 0, rng()), one.draw(SHAPE, 0, rng()))


def test_quarter_hours_are_read_as_such(tmp_path):
    profiles = TableProfiles(saved(two_days("15min"), tmp_path))
    assert profiles.n_days == 2
    assert profiles.draw(replace(SHAPE, intervals=96, step_hours=0.25), 1, rng()).load_pu.shape == (96, 5)


def test_a_table_that_does_not_fit_the_scenario_is_told_what_would(tmp_path):
    profiles = TableProfiles(saved(two_days("15min"), tmp_path))
    wanted = replace(SHAPE, bus=("0", "1"), demand_class=("residential", "harbour"))
    with pytest.raises(InvalidProfiles) as error:
        profiles.draw(wanted, 0, rng())
    assert "steps by 0.25 h and the scenario by 1 h: resample the file to 1 h" in str(error.value)
    assert "column demand_harbour_pu is missing" in str(error.value)
    assert "column load_pu_2 belongs to no bus: the feeder has 2" in str(error.value)


def test_missing_and_unknown_columns_are_named_together(tmp_path):
    fault = fault_of(two_days().drop(columns=["time", "pv_pu"]).rename(columns={"load_pu_2": "load_2"}), tmp_path)
    assert "column time is missing" in fault
    assert "column pv_pu is missing" in fault
    assert "column load_2 is unknown" in fault


@pytest.mark.parametrize(
    ("column", "row", "value", "fault"),
    [
        ("pv_pu", 5, 1.25, "pv_pu is above 1 (looks like kW rather than a share of the installed peak) at row 6"),
        ("pv_pu", 5, -0.1, "pv_pu is negative at row 6 (2024-03-01T05:00)"),
        ("load_pu", 7, -0.5, "load_pu is negative at row 8 (2024-03-01T07:00)"),
        ("load_pu_2", 7, 60.0, "load_pu_2 is above 3 (looks like kW rather than p.u.) at row 8"),
        ("lmp_per_kwh", 0, 45.0, "lmp_per_kwh is above 3 (is it per MWh?) at row 1 (2024-03-01T00:00)"),
        ("lmp_day_ahead_per_kwh", 0, -0.01, "lmp_day_ahead_per_kwh is negative at row 1"),
        ("demand_residential_pu", 47, 30.0, "demand_residential_pu is above 1"),
        ("load_pu", 3, float("nan"), "load_pu is missing or not a number at row 4 (2024-03-01T03:00)"),
        ("load_pu", 3, float("inf"), "load_pu is missing or not a number at row 4"),
        ("load_pu", 3, "1e3332436601", "load_pu is missing or not a number at row 4"),
        ("load_pu", 3, "n/k", "load_pu is missing or not a number at row 4"),
        ("time", 3, "yesterday", "time is missing or no ISO timestamp at row 4"),
        ("time", 3, None, "time is missing or no ISO timestamp at row 4"),
        ("time", 3, "2024-03-01T02:00", "time is there twice at row 4 (2024-03-01T02:00)"),
        ("time", 3, "2024-03-01T03:20", "time is not 1 h after the row before at rows 4 (2024-03-01T03:20), 5"),
    ],
)
def test_each_fault_is_named_with_row_and_time(tmp_path, column, row, value, fault):
    frame = two_days().astype({column: object})
    frame.loc[row, column] = value
    assert fault in fault_of(frame, tmp_path)


def test_many_faults_are_named_at_once_and_long_lists_are_cut(tmp_path):
    frame = two_days()
    frame["lmp_per_kwh"] *= 1000
    frame.loc[2, "pv_pu"] = -1.0
    fault = fault_of(frame, tmp_path)
    assert "is it per MWh?) at rows 1 (2024-03-01T00:00), 2 (" in fault
    assert "and 43 more" in fault
    assert "pv_pu is negative at row 3" in fault


def test_hours_lost_to_summer_time_are_found(tmp_path):
    zoned = pd.date_range("2024-03-30", "2024-04-01", freq="1h", inclusive="left", tz="Europe/Berlin")
    frame = two_days().head(len(zoned)).assign(time=zoned.map(lambda t: t.isoformat()))
    fault = fault_of(frame, tmp_path)
    assert "time is not 1 h after the row before at row 27 (2024-03-31T03:00)" in fault
    assert "47 rows of 1 h are no whole days: 23 are left over" in fault


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (slice(0, 0), "there is less than one whole day (0 rows)"),
        (slice(0, 1), "there is less than one whole day (1 rows)"),
        (slice(0, 23), "there is less than one whole day (23 rows of 1 h)"),
        (slice(0, 30), "30 rows of 1 h are no whole days: 6 are left over"),
        (slice(12, 36), "time starts at 2024-03-01T12:00, not at 00:00"),
    ],
)
def test_a_table_holds_whole_days_from_midnight(tmp_path, rows, fault):
    assert fault in fault_of(two_days().iloc[rows], tmp_path)


def test_steps_that_do_not_divide_a_day_are_refused(tmp_path):
    frame = two_days().assign(time=pd.date_range("2024-03-01", periods=48, freq="7h").strftime("%Y-%m-%dT%H:%M"))
    assert "time steps by 7 h, which does not divide a day of 24 h" in fault_of(frame, tmp_path)


def test_numbers_are_no_times(tmp_path):
    assert "no ISO timestamp at rows 1, 2, 3, 4, 5 and 43 more" in fault_of(two_days().assign(time=range(48)), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("broken.parquet", b"PAR1 this is not what it says PAR1", "cannot be read"),
        ("empty.parquet", b"", "cannot be read"),
        ("empty.csv", b"", "cannot be read"),
        ("binary.csv", bytes(range(256)) * 4, "cannot be read"),
        ("ragged.csv", b"time,lmp_per_kwh\n1,2\n1,2,3,4\n", "cannot be read"),
        ("semicolons.csv", b"time;lmp_per_kwh\n2024-03-01T00:00;0,1\n", "column lmp_per_kwh is missing"),
        ("profiles.xlsx", b"PK", "must end in .csv or .parquet"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, name, content, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidProfiles, match=name) as error:
        TableProfiles(tmp_path / name)
    assert fault in str(error.value)


def test_parquet_cut_short_or_damaged_is_refused_or_read_but_never_crashes(tmp_path):
    whole = saved(two_days(), tmp_path, "whole.parquet").read_bytes()
    damaged = tmp_path / "damaged.parquet"
    for at in np.linspace(0, len(whole) - 1, 60).astype(int):
        damaged.write_bytes(whole[:at])
        with pytest.raises(InvalidProfiles):
            TableProfiles(damaged)
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(InvalidProfiles):
            TableProfiles(damaged)


def test_damaged_notes_of_pandas_do_not_matter(tmp_path):
    path = saved(two_days(), tmp_path, "notes.parquet")
    before = TableProfiles(path)
    path.write_bytes(path.read_bytes().replace(b'"index_columns":', b'"index_columns";'))
    assert TableProfiles(path) != before
    assert_same(TableProfiles(path).draw(SHAPE, 0, rng()), before.draw(SHAPE, 0, rng()))


def test_odd_column_types_in_parquet_are_faults_not_crashes(tmp_path):
    frame = two_days().assign(pv_pu=[[0.5]] * 48, load_pu=pd.Timestamp("2024-03-01"), pv_forecast_pu=b"x")
    with pytest.raises(InvalidProfiles) as error:
        TableProfiles(saved(frame, tmp_path, "odd.parquet"))
    for name in ("pv_pu", "load_pu", "pv_forecast_pu"):
        assert f"{name} is missing or not a number" in str(error.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidProfiles, match=r"nowhere\.csv' cannot be read: No such file"):
        TableProfiles(tmp_path / "nowhere.csv")
