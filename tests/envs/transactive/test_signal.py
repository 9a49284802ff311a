"""The rules that move the root signal, and what becomes of a market that answers them."""

from itertools import pairwise

import numpy as np
import pytest

from peergrid.envs.transactive.signal import Rule, Standing, fixed, halving, none, proportional

BASE, GAIN = 0.1, 0.8
moving = pytest.mark.parametrize("rule", [fixed, halving, proportional])


def move(rule, root, gap_share, last_gap_share=0.0, step_share=0.01, gain=GAIN):
    given = {"root_per_kwh": root, "base_per_kwh": BASE, "gap_share": gap_share}
    given |= {"last_gap_share": last_gap_share, "step_share": step_share}
    each = {name: np.atleast_1d(np.array(a, dtype=float)) * np.ones(np.size(root)) for name, a in given.items()}
    return rule(Standing(**each, gain=gain))


def answered(rule, rounds, wanted=1.043, slope=5.0):
    """Gaps of a market that imports less the higher the signal, and meets its schedule at `wanted` times the base."""
    root, last, step, gaps = np.array([BASE]), 0.0, np.array([0.01]), []
    for _ in range(rounds):
        gaps.append(float(slope * (wanted - root[0] / BASE)))
        root, step = move(rule, root, gaps[-1], last, step)
        last = gaps[-1]
    return np.array(gaps)


@pytest.mark.parametrize("rule", [fixed, halving, proportional, none])
def test_every_rule_is_a_rule(rule):
    assert isinstance(rule, Rule)


@moving
def test_the_signal_rises_where_more_is_imported_than_scheduled_and_falls_where_less_is(rule):
    root, _ = move(rule, [0.1, 0.1, 0.1], [0.05, -0.05, 0.0])
    assert root[0] > 0.1 > root[1] and root[2] == 0.1


@pytest.mark.parametrize("rule", [fixed, halving])
def test_a_step_is_a_share_of_the_base_whatever_the_gap(rule):
    root, step = move(rule, [0.1, 0.1], [0.001, 3.0], step_share=0.02)
    np.testing.assert_allclose(root, 0.102)
    np.testing.assert_array_equal(step, 0.02)


def test_halving_halves_only_where_the_gap_changes_its_sign():
    root, step = move(halving, [0.1] * 4, [0.2, -0.2, 0.2, -0.2], [0.3, 0.3, -0.3, 0.0], step_share=0.008)
    np.testing.assert_allclose(step, [0.008, 0.004, 0.004, 0.008])
    np.testing.assert_allclose(root, [0.1008, 0.0996, 0.1004, 0.0992])


def test_fixed_never_halves():
    root, step = move(fixed, [0.1, 0.1], [0.2, -0.2], [-0.3, 0.3], step_share=0.008)
    np.testing.assert_allclose(step, 0.008)
    np.testing.assert_allclose(root, [0.1008, 0.0992])


def test_proportional_moves_by_the_gap():
    root, _ = move(proportional, [0.1, 0.1, 0.11], [0.05, -0.1, 0.02])
    np.testing.assert_allclose(root, [0.1 + GAIN * 0.005, 0.1 - GAIN * 0.01, 0.11 + GAIN * 0.002])


@pytest.mark.parametrize("gain", [0.1, 0.8, 2.5])
def test_a_gap_of_one_percent_moves_the_proportional_signal_by_the_gain_in_percent_of_the_base(gain):
    root, step = move(proportional, [0.11, 0.09], [0.01, -0.01], gain=gain)
    np.testing.assert_allclose(root, [0.11 + gain / 100 * BASE, 0.09 - gain / 100 * BASE])
    np.testing.assert_array_equal(step, 0.01)


@pytest.mark.parametrize("rule", [fixed, halving, none])
def test_other_rules_do_not_read_the_gain(rule):
    np.testing.assert_array_equal(*(move(rule, [0.1, 0.11], [0.02, -0.3], gain=gain)[0] for gain in (0.1, 9.0)))


def test_none_stays():
    root, step = move(none, [0.09, 0.1], [0.5, -0.5], [-0.5, 0.5])
    np.testing.assert_array_equal(root, [0.09, 0.1])
    np.testing.assert_array_equal(step, 0.01)


def test_a_fixed_step_cycles_around_a_schedule_between_two_steps_for_ever():
    gaps = answered(fixed, 60)[10:]
    assert all(a * b < 0 for a, b in pairwise(gaps))
    np.testing.assert_allclose(gaps[2:], gaps[:-2])
    assert np.abs(gaps).min() > 0.01  # never within 1 % of the schedule


@pytest.mark.parametrize(("rule", "rounds"), [(halving, 20), (proportional, 20)])
def test_halving_and_proportional_steps_close_in_on_the_same_schedule(rule, rounds):
    slope = 5.0 if rule is halving else 1.0
    gaps = answered(rule, rounds, slope=slope)
    assert abs(gaps[0]) > 0.04 and np.abs(gaps[-3:]).max() < 0.01
