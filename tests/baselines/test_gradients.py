"""Learning through the operator: its slopes are those of small changes, and climbing them pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.baselines.learned import load_policy
from peergrid.baselines.references import References
from peergrid.baselines.training.gradients import (
    GradientSettings,
    battery_limits,
    energy_after,
    held_within,
    slopes_of,
    with_stored,
)
from peergrid.baselines.training.lesson import AlgoSettings, Lesson, learn
from peergrid.envs.microgrid import battery_limits as limits_in_numpy
from peergrid.envs.p2p_trading import transition
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import advance, current_interval, decode, encode
from peergrid.envs.scenario import load_scenario
from peergrid.grid.errors import PeergridError

SCENARIO = load_scenario("ieee33_communities", intervals=4, cooperation=1.0, over_no_trade=True)
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))


def lesson(folder, steps=64, scenario=SCENARIO, player="shared", **arguments):
    return Lesson(
        scenario=scenario,
        references=KNOWN,
        algo=AlgoSettings("gradients", "gradients", 4, [8], {"learning_rate": 0.01} | arguments),
        predictor="none",
        predicted_intervals=None,
        player=player,
        steps=steps,
        check_every=16,
        seed=3,
        folder=folder,
    )


def somewhere(cooperation, n=24, seed=1):
    """Markets some intervals into a day, the dispatch prices near the nodal ones, where offer curves have a slope."""
    sim = Simulation(replace(SCENARIO, cooperation=cooperation, intervals=24), num_envs=n, predictor="none")
    sim.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(9):
        sim.step(rng.uniform(-0.2, 0.2, (n, sim.n_agent, 4)))
    state, days = sim.running()
    now = current_interval(state, days, sim.params)
    actions = rng.uniform(-0.5, 0.5, (n, sim.n_agent, 4))
    actions[..., 3] = rng.uniform(-0.05, 0.1, (n, sim.n_agent))
    return sim, state, days, now, actions


@pytest.mark.parametrize("cooperation", [0.0, 0.5, 1.0])
def test_slopes_are_those_of_small_changes(cooperation, monkeypatch):
    sim, state, days, now, actions = somewhere(cooperation)
    params, settings = sim.params, GradientSettings(smoothing_per_kwh=1.0e-5)
    _, outcome = advance(state, actions, days, params)
    slopes = slopes_of(outcome, now, params, settings)

    def changed(number, m, by):
        decisions, _ = decode(actions, now, params)
        name = ("battery_kw", "dispatch_price_per_kwh")[number]
        values = getattr(decisions, name).copy()
        values[:, m] += by
        again = encode(replace(decisions, **{name: values}), now, params)
        _, after = advance(state, again, days, params)
        return after.reward[:, m], after

    # Contracts as they were: what changes is what the microgrid makes of them.
    monkeypatch.setattr(transition, "clear", lambda mechanism, offers, spread: outcome.contracts)
    per_number = np.sqrt(0.1**2 + outcome.decisions.dispatch_price_per_kwh**2) * np.arcsinh(10.0)
    found, expected, where = [], [], []
    for number, step in ((0, 0.05), (1, 1.0e-4)):
        for m in range(sim.n_agent):
            (up, a), (down, b) = changed(number, m, step), changed(number, m, -step)
            expected.append((up - down) / (2.0 * step))
            slope = slopes.per_battery_kw if number == 0 else slopes.per_price / per_number
            found.append(slope[:, m])
            smooth = (a.response.status == 0) & (b.response.status == 0) & (outcome.response.status == 0)
            same = (a.decisions.battery_kw - b.decisions.battery_kw)[:, m] - (2.0 * step if number == 0 else 0.0)
            where.append(smooth & ~outcome.is_curtailed.any(-1) & (np.abs(same) < 1e-9))
    found, expected, where = np.array(found), np.array(expected), np.array(where)
    assert where.mean() > 0.3
    error = np.abs(found - expected)[where]
    scale = np.abs(expected)[where].max()
    # At kinks of the offer curves, and where a limit begins to bind, the two sides differ.
    assert np.quantile(error, 0.85) < 0.02 * scale, np.quantile(error, [0.5, 0.8, 0.9, 1.0]) / scale


def test_what_is_stored_moves_limits_and_what_is_seen_as_in_the_market():
    sim, state, _, now, _ = somewhere(1.0, n=3)
    stored = torch.from_numpy(state.stored_kwh)
    limits = battery_limits(stored, now, sim.params)
    expected = limits_in_numpy(
        sim.params.microgrids, now.interval, state.stored_kwh, now.least_kwh, now.most_kwh, sim.params.step_hours
    )
    for found, right in zip(limits, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-9)
    np.testing.assert_allclose(with_stored(torch.from_numpy(sim.seen), stored, limits, sim), sim.seen, atol=1e-6)
    battery_kw = (expected[0] + expected[1]) / 2.0
    actions = np.zeros((3, sim.n_agent, 4))
    actions[..., 0] = battery_kw / sim.params.microgrids.battery_rating_kw
    sim.step(actions)
    np.testing.assert_allclose(
        energy_after(stored, torch.from_numpy(battery_kw), sim.params), sim.running()[0].stored_kwh, atol=1e-6
    )


def test_a_value_beyond_its_end_is_moved_by_the_end_and_can_be_led_back():
    low, high = torch.tensor([0.0, 0.0, 0.0], requires_grad=True), torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    value = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    held = held_within(value, low, high)
    assert held.tolist() == [0.0, 0.5, 1.0]
    (held * torch.tensor([-1.0, 2.0, -1.0])).sum().backward()
    assert value.grad.tolist() == [-1.0, 2.0, 0.0]  # descending leads up: back inside below, further out above
    assert low.grad.tolist() == [-1.0, 0.0, 0.0] and high.grad.tolist() == [0.0, 0.0, -1.0]


def test_climbing_pays_within_a_few_days(tmp_path):
    curve = learn(lesson(tmp_path, steps=640))
    assert curve[-1].welfare > curve[0].welfare + 5.0


def test_a_training_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    whole = learn(lesson(tmp_path / "whole"))

    def interrupt(point):
        if point.steps == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(tmp_path / "parts"), interrupt)
    parts = learn(lesson(tmp_path / "parts"))
    assert [p.welfare for p in parts] == [p.welfare for p in whole]
    actors = [load_policy(tmp_path / name / "policy.safetensors").actor for name in ("whole", "parts")]
    for one, other in zip(*(actor.weights for actor in actors), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_it_cannot_train_is_refused(tmp_path):
    with pytest.raises(PeergridError, match="trains with player=shared, not player=central"):
        learn(lesson(tmp_path, player="central"))
