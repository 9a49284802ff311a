"""What agents own: energy that comes back, set-points that are cut in order, costs by hand."""

from dataclasses import fields

import numpy as np
import pytest

from peergrid.envs.devices.demand import shift_window
from peergrid.envs.transactive.resources import (
    Resources,
    SetPoints,
    carried,
    operating_cost,
    storage_range,
    storage_window,
    store,
)

HOURS = 0.5
# Three agents: small and fast, large and lossy, and one that owns nothing but its load.
PARTS = dict(
    peak_kw=[100.0, 40.0, 10.0],
    shiftable_share=[0.15, 0.5, 0.0],
    shift_per_kw2h=[0.003, 0.01, 0.0],
    generator_max_kw=[25.0, 10.0, 0.0],
    generator_a_per_kw2h=[0.0008, 0.002, 0.0],
    generator_b_per_kwh=[0.09, 0.08, 0.0],
    storage_max_kw=[10.0, 20.0, 0.0],
    storage_max_kwh=[20.0, 80.0, 0.0],
    charge_efficiency=[0.95, 0.8, 1.0],
    discharge_efficiency=[0.9, 0.7, 1.0],
    wear_per_kwh=[0.01, 0.02, 0.0],
    storage_per_kw2h=[0.003, 0.001, 0.0],
    pv_peak_kw=[40.0, 0.0, 0.0],
)
OWNED = Resources(**{name: np.array(values) for name, values in PARTS.items()})


def set_points(shift, generator, storage):
    return SetPoints(
        shift_kw=np.array([shift], dtype=float),
        generator_kw=np.array([generator], dtype=float),
        storage_kw=np.array([storage], dtype=float),
    )


# Storage


def test_an_hour_of_charging_and_of_discharging_by_hand():
    stored = np.array([10.0, 40.0, 0.0])
    # 4 kW for half an hour fill 0.95 * 2 kWh, 14 kW empty 14 / 0.7 * 0.5 = 10 kWh.
    after = store(OWNED, stored, np.array([-4.0, 14.0, 0.0]), HOURS)
    np.testing.assert_allclose(after, [11.9, 30.0, 0.0])


def test_storage_holds_neither_less_than_nothing_nor_more_than_all():
    after = store(OWNED, np.array([[19.0, 1.0, 0.0]]), np.array([[-10.0, 20.0, 0.0]]), HOURS)
    np.testing.assert_array_equal(after, [[20.0, 0.0, 0.0]])


def test_the_range_of_storage_power_ends_the_interval_at_the_energies_asked_for():
    rng = np.random.default_rng(0)
    stored, *ends = rng.uniform(0, 1, (3, 500, 3)) * OWNED.storage_max_kwh
    least, most = np.sort(ends, axis=0)
    lowest_kw, highest_kw = storage_range(OWNED, stored, least, most, HOURS)
    assert (lowest_kw <= highest_kw).all()
    assert (np.abs([lowest_kw, highest_kw]) <= OWNED.storage_max_kw).all()
    for power, wanted in ((lowest_kw, most), (highest_kw, least)):
        reached = store(OWNED, stored, power, HOURS)
        is_free = np.abs(power) < OWNED.storage_max_kw
        assert 0.1 < is_free[:, :2].mean() < 0.9  # both cases are met
        np.testing.assert_allclose(reached[is_free], wanted[is_free], atol=1e-9)
        # At its rating it goes as far as it can, and falls short.
        short = (wanted - reached) * np.sign(-power)
        assert (short[~is_free] >= -1e-9).all()


def test_no_energy_is_won_by_charging_and_discharging():
    stored = np.array([10.0, 40.0, 0.0])
    charged = store(OWNED, stored, np.array([-5.0, -5.0, 0.0]), HOURS)
    _, back_kw = storage_range(OWNED, charged[None], stored[None], stored[None], HOURS)
    # 2.5 kWh went in; the round trip gives back 0.95 * 0.9 and 0.8 * 0.7 of them.
    np.testing.assert_allclose(back_kw[0] * HOURS, [2.5 * 0.855, 2.5 * 0.56, 0.0])


@pytest.mark.parametrize("full", [0.0, 0.3, 1.0])
def test_within_the_window_the_day_always_ends_as_it_began(full):
    rng, intervals, n_day = np.random.default_rng(1), 24, 200
    initial = full * OWNED.storage_max_kwh
    least, most = storage_window(OWNED, initial, intervals, HOURS)
    stored, moved = np.tile(initial, (n_day, 1)), 0.0
    # Some days ask for anything, others for the same extreme throughout.
    wanted = rng.uniform(-30, 30, (n_day, intervals, 3))
    wanted[: n_day // 2] = np.sign(wanted[: n_day // 2, :1]) * 1e3
    for t in range(intervals):
        ends = (np.tile(w[t + 1], (n_day, 1)) for w in (least, most))
        low, high = storage_range(OWNED, stored, *ends, HOURS)
        assert (low <= high + 1e-9).all()
        stored = store(OWNED, stored, np.clip(wanted[:, t], low, high), HOURS)
        assert (least[t + 1] - 1e-9 <= stored).all() and (stored <= most[t + 1] + 1e-9).all()
        moved = max(moved, np.abs(stored - initial)[:, :2].max())
    np.testing.assert_allclose(stored, np.tile(initial, (n_day, 1)), atol=1e-9)
    assert moved > 10  # it was no idle day


def test_the_storage_window_forbids_no_more_than_it_must():
    intervals, initial = 12, 0.5 * OWNED.storage_max_kwh
    least, most = storage_window(OWNED, initial, intervals, HOURS)
    np.testing.assert_array_equal(least[-1], initial)
    np.testing.assert_array_equal(most[-1], initial)
    for t in range(intervals):
        for edge, power in ((least[t], -OWNED.storage_max_kw), (most[t], OWNED.storage_max_kw)):
            end = edge
            for _ in range(intervals - t):
                end = store(OWNED, end, power, HOURS)
            # From the edge, full power to the end of the day overshoots (held by a bound) or just arrives.
            is_bound = (edge == 0) | (edge == OWNED.storage_max_kwh)
            np.testing.assert_allclose(end[~is_bound], initial[~is_bound], atol=1e-9)
            assert ((end - initial) * np.sign(-power) >= -1e-9)[:2].all()


# Shifting


def test_within_its_window_all_shifted_load_returns():
    rng, intervals, n_day = np.random.default_rng(2), 24, 200
    most_kw = rng.uniform(0, 20, (intervals, 3)) * (np.arange(3) < 2)
    window = shift_window(most_kw, HOURS)
    shifted, furthest = np.zeros((n_day, 3)), 0.0
    wanted = rng.uniform(-30, 30, (n_day, intervals, 3))
    wanted[: n_day // 2] = np.sign(wanted[: n_day // 2, :1]) * 1e3
    for t in range(intervals):
        low = np.clip((-window[t + 1] - shifted) / HOURS, -most_kw[t], most_kw[t])
        high = np.clip((window[t + 1] - shifted) / HOURS, -most_kw[t], most_kw[t])
        shifted = shifted + HOURS * np.clip(wanted[:, t], low, high)
        assert (np.abs(shifted) <= window[t + 1] + 1e-9).all()
        furthest = max(furthest, np.abs(shifted).max())
    np.testing.assert_allclose(shifted, 0.0, atol=1e-9)
    assert furthest > 20


def test_the_shift_window_is_what_the_hours_left_can_return():
    most_kw = np.array([[[3.0], [1.0], [2.0]]])
    np.testing.assert_allclose(shift_window(most_kw, HOURS)[0, :, 0], [3.0, 1.5, 1.0, 0.0])


# What the DSO carries


@pytest.mark.parametrize(
    ("accepted", "left"),
    [
        (100.0, (10.0, 40.0, 20.0, 30.0)),  # shift, generator, storage, PV: nothing is cut
        (75.0, (10.0, 15.0, 20.0, 30.0)),
        (60.0, (10.0, 0.0, 20.0, 30.0)),
        (45.0, (10.0, 0.0, 20.0, 15.0)),
        (22.0, (10.0, 0.0, 12.0, 0.0)),
        (4.0, (4.0, 0.0, 0.0, 0.0)),
        (0.0, (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_an_injection_is_cut_at_the_generator_then_pv_then_discharge_then_load_put_off(accepted, left):
    done, pv = carried(set_points([10.0], [40.0], [20.0]), np.array([[30.0]]), np.array([[accepted]]))
    np.testing.assert_allclose((done.shift_kw, done.generator_kw, done.storage_kw, pv), np.reshape(left, (4, 1, 1)))


@pytest.mark.parametrize(
    ("accepted", "left"), [(-30.0, (-10.0, -20.0)), (-18.0, (-10.0, -8.0)), (-7.0, (-7.0, 0.0)), (0.0, (0.0, 0.0))]
)
def test_a_withdrawal_is_cut_at_charging_then_at_load_brought_forward(accepted, left):
    done, _ = carried(set_points([-10.0], [0.0], [-20.0]), np.zeros((1, 1)), np.array([[accepted]]))
    np.testing.assert_allclose((done.shift_kw, done.storage_kw), np.reshape(left, (2, 1, 1)))


def test_what_is_left_adds_up_to_what_was_accepted_and_nothing_grows_or_turns():
    rng, n = np.random.default_rng(3), 1000
    chosen = SetPoints(
        shift_kw=rng.uniform(-20, 20, (n, 3)),
        generator_kw=rng.uniform(0, 25, (n, 3)),
        storage_kw=rng.uniform(-20, 20, (n, 3)),
    )
    pv_kw = rng.uniform(0, 40, (n, 3)) * rng.integers(0, 2, (n, 3))
    accepted = (chosen.total_kw + pv_kw) * rng.choice([0.0, 0.3, 0.9, 1.0], (n, 3))
    done, pv = carried(chosen, pv_kw, accepted)
    np.testing.assert_allclose(done.total_kw + pv, accepted, atol=1e-9)
    for before, after in [(pv_kw, pv), *((getattr(chosen, f.name), getattr(done, f.name)) for f in fields(SetPoints))]:
        assert (np.abs(after) <= np.abs(before)).all() and (after * before >= 0).all()


# Money


def test_costs_by_hand():
    # 10 kW put off: 0.3; 20 kW generated: 1.8 + 0.32; 5 kW charged: 0.05 + 0.075.
    cost = operating_cost(OWNED, set_points([10.0, 0, 0], [20.0, 0, 0], [-5.0, -10.0, 0]))
    np.testing.assert_allclose(cost, [[0.3 + 2.12 + 0.125, 0.3, 0.0]])


def test_every_resource_costs_more_at_the_margin_the_more_it_is_used():
    for shift, generator, storage in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1)):
        power = np.array([0.0, 5.0, 10.0])
        cost = [
            operating_cost(OWNED, set_points(*([k * p, k * p, 0] for k in (shift, generator, storage))))[0, :2]
            for p in power
        ]
        assert (cost[2] - cost[1] > cost[1] - cost[0]).all() and (cost[1] > cost[0]).all()


def test_no_agent_exchanges_more_than_its_rating():
    all_of_it = OWNED.shiftable_share * OWNED.peak_kw + OWNED.generator_max_kw + OWNED.storage_max_kw + OWNED.pv_peak_kw
    assert (OWNED.rating_kw >= all_of_it).all()
    draws = OWNED.peak_kw * (1 + OWNED.shiftable_share) + OWNED.storage_max_kw
    assert (OWNED.rating_kw >= draws).all()
