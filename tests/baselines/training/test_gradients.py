"""Learning through the operator: slopes are those of the market itself, and what is learned by them is worth more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.baselines.episode.play import play_all
from peergrid.baselines.policies.learned import LearnedPolicy, load_policy
from peergrid.baselines.scoring.references import References
from peergrid.baselines.training.gradients import (
    STORED,
    Climber,
    GradientSettings,
    battery_limits,
    differentiable,
    held_within,
    play_day,
    slopes_of,
)
from peergrid.baselines.training.lesson import AlgoSettings, Lesson, learn
from peergrid.envs.common.entries import PRICE_UNIT_PER_KWH, bent
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.grid.errors import PeergridError

SCENARIO = load_scenario("ieee33", intervals=4, cooperation=1.0, over_no_trade=True)
KNOWN = References(no_trade=np.array([-1000.0, -1000.0]), optimum=np.array([-900.0, -900.0]))
SEEDS = [5]


def lesson(folder, steps=64, player="shared", scenario=SCENARIO, **arguments):
    return Lesson(
        scenario=scenario,
        references=KNOWN,
        algo=AlgoSettings(name="gradients", library="gradients", num_envs=4, net_arch=[8], arguments=arguments),
        predictor="none",
        predicted_intervals=None,
        player=player,
        steps=steps,
        check_every=16,
        seed=3,
        folder=folder,
    )


def weights(folder):
    return load_policy(folder / "policy.safetensors").actor.weights


class Played:
    """Days of given battery powers (shares of rating) and dispatch prices, the same whatever is published."""

    def __init__(self, scenario, num_envs=2):
        self.simulation = differentiable(scenario, num_envs, "none")
        shape = (scenario.intervals, num_envs, self.simulation.n_agent)
        drawing = np.random.default_rng(0)
        self.battery = torch.tensor(drawing.uniform(-0.4, 0.4, shape), requires_grad=True)
        self.price = torch.tensor(drawing.uniform(0.02, 0.25, shape), requires_grad=True)
        self.rewards, self.held = np.zeros(shape), np.zeros(shape, dtype=bool)

    def day(self, battery, price, smoothing_per_kwh=1.0e-6):
        simulation, t = self.simulation, 0
        highest = float(bent(simulation.params.market.price_cap_per_kwh))
        outcomes = []

        def act(seen):
            nonlocal t
            if t:
                outcomes.append(simulation.outcome)
            now = current_interval(*simulation.running(), simulation.params)
            above = torch.asinh(price[t] / PRICE_UNIT_PER_KWH) - torch.from_numpy(bent(now.published_per_kwh))
            nothing = torch.zeros_like(above)
            numbers = torch.stack([battery[t], nothing, nothing, above / highest], dim=-1)
            t += 1
            return numbers, numbers

        day = play_day(simulation, act, SEEDS, smoothing_per_kwh)
        outcomes.append(simulation.outcome)
        wished_kw = battery.detach().numpy() * simulation.params.microgrids.battery_rating_kw
        self.held = np.abs(wished_kw - np.stack([o.decisions.battery_kw for o in outcomes])) > 1e-9
        return day, np.stack([o.reward for o in outcomes]).sum(axis=0)

    def measured(self, which, step):
        """What a step up and a step down of each decision does to the own reward of the day, for each unit."""
        given = {"battery": self.battery.detach(), "price": self.price.detach()}
        found = np.zeros((2, *given[which].shape))
        _, before = self.day(**given)
        n_time, _, n_agent = given[which].shape
        for side, sign in enumerate((1.0, -1.0)):
            for k in range(n_time):
                for m in range(n_agent):
                    moved = given[which].clone()
                    moved[k, :, m] += sign * step
                    _, after = self.day(**(given | {which: moved}))
                    found[side, k, :, m] = (after - before)[:, m] / (sign * step)
        return found


@pytest.mark.parametrize(
    ("name", "horizon", "cooperation"),
    [("ieee33_communities", "truncate", 1.0), ("ieee33_communities", "terminate", 0.0), ("ieee33", "truncate", 0.4)],
)
def test_slopes_are_those_of_days_played_a_little_otherwise(name, horizon, cooperation):
    played = Played(load_scenario(name, intervals=3, cooperation=cooperation, horizon=horizon))
    day, _ = played.day(played.battery, played.price)
    inside = ~played.held
    slopes = torch.autograd.grad(day.value, [played.battery, played.price])
    for which, step, slope in zip(("battery", "price"), (1e-4, 1e-6), slopes, strict=True):
        up, down = played.measured(which, step)
        # Where they differ there is a kink, or a limit that binds on one side alone.
        smooth = np.abs(up - down) < 1e-3 * (1.0 + np.abs(up))
        smooth &= inside if which == "battery" else True
        assert smooth.mean() > 0.5
        found, expected = slope.numpy()[smooth], (0.5 * (up + down))[smooth]
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())
        assert np.abs(expected).max() > 0.1


def test_energy_stored_now_is_worth_what_it_sells_for_when_the_day_must_end_where_it_began():
    played = Played(load_scenario("ieee33", intervals=3, cooperation=1.0, daily_cycle=True))
    day, _ = played.day(played.battery, played.price)
    assert played.held[-1].any()
    (slope,) = torch.autograd.grad(day.value, [played.battery])
    up, down = played.measured("battery", 1e-4)
    smooth = (np.abs(up - down) < 1e-3 * (1.0 + np.abs(up))) & ~played.held
    assert smooth[:-1].any()
    np.testing.assert_allclose(slope.numpy()[smooth], up[smooth], rtol=1e-2, atol=1e-3 * np.abs(up[smooth]).max())


def test_limits_and_what_is_seen_of_them_are_those_of_the_market():
    simulation = differentiable(SCENARIO, 2, "none")
    simulation.reset(seed=1)
    names = [entry.name for entry in simulation.entries]
    columns = [names.index(name) for name in STORED]

    def act(seen):
        state, days = simulation.running()
        now = current_interval(state, days, simulation.params)
        least, most = battery_limits(torch.tensor(state.stored_kwh), now, simulation.params)
        np.testing.assert_allclose(least, now.battery_least_kw, atol=1e-9)
        np.testing.assert_allclose(most, now.battery_most_kw, atol=1e-9)
        np.testing.assert_allclose(seen[..., columns].detach(), simulation.seen[..., columns], atol=1e-6)
        numbers = torch.full((2, simulation.n_agent, 4), 0.3)
        return numbers, numbers

    play_day(simulation, act, SEEDS, 0.01)


def test_a_contract_is_worth_the_half_spread_until_the_export_is_contracted():
    scenario = replace(SCENARIO, cooperation=0.0)
    simulation = differentiable(scenario, 2, "none")
    simulation.reset(seed=1)
    now = current_interval(*simulation.running(), simulation.params)
    simulation.params.dso.listen()
    _, outcome = simulation.step(np.tile([0.0, 0.0, 0.0, 0.5], (2, simulation.n_agent, 1)))
    accepted_kw, spread = outcome.response.accepted_kw, scenario.market.half_spread_per_kwh
    slopes, sells = slopes_of(outcome, now, simulation.params, 0.01), accepted_kw > 1.0
    assert sells.any()
    np.testing.assert_allclose(slopes.per_quantity_kw[sells], spread, atol=1e-6)


def test_what_is_held_at_an_end_is_led_back_inside_and_not_further_out():
    value = torch.tensor([-2.0, -2.0, 0.0, 2.0, 2.0], requires_grad=True)
    low, high = torch.full((5,), -1.0, requires_grad=True), torch.full((5,), 1.0, requires_grad=True)
    upwards = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    (held_within(value, low, high) * upwards).sum().backward()
    np.testing.assert_array_equal(value.grad, [1.0, 0.0, 1.0, 0.0, -1.0])
    np.testing.assert_array_equal(low.grad, [1.0, -1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(high.grad, [0.0, 0.0, 0.0, 1.0, -1.0])


@pytest.mark.parametrize("cooperation", [1.0, 0.0])
def test_what_is_learned_is_paid_better(cooperation):
    scenario = load_scenario("ieee33_communities", intervals=4, step_hours=6.0, cooperation=cooperation)
    torch.manual_seed(0)
    climber = Climber(GradientSettings(), differentiable(scenario, 4, "none"), [8])
    climber.look_around([0])
    before = paid(climber)
    for k in range(20):
        climber.climb(share_left=1.0 - k / 20, seeds=[0, k])
    assert paid(climber) > before + 500.0


def paid(climber):
    """What all microgrids are paid of two held-out days, in currency."""
    simulation, policy = climber.simulation, LearnedPolicy(climber.actor_alone(), "shared", {})
    simulation.reset(options={"evaluation_day": 0})
    rewards = 0.0
    while not simulation.is_over.all():
        _, outcome = simulation.step(policy.act_rows(simulation, simulation.seen))
        rewards += outcome.reward[:2].sum()
    return rewards


def test_the_file_plays_as_it_did(tmp_path):
    curve = learn(lesson(tmp_path, steps=32))
    assert len({p.welfare for p in curve}) == 3
    again = play_all(Simulation(SCENARIO, num_envs=2, predictor="none"), load_policy(tmp_path / "policy.safetensors"))
    assert np.mean(again) == curve[-1].welfare


def test_limits_stay_at_the_lmp():
    climber = Climber(GradientSettings(), differentiable(SCENARIO, 4, "none"), [8])
    climber.look_around([0])
    for k in range(3):
        climber.climb(1.0, [0, k])
    numbers = climber.actor_alone()(climber.simulation.seen.reshape(-1, climber.simulation.seen.shape[-1]))
    assert (numbers[:, 2] == 0.0).all() and (np.ptp(numbers[:, [0, 1, 3]], axis=0) > 0.0).all()


def test_a_training_that_was_interrupted_ends_bit_for_bit_as_one_that_was_not(tmp_path):
    whole = learn(lesson(tmp_path / "whole"))

    def interrupt(point):
        if point.steps == 48:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(lesson(tmp_path / "parts"), interrupt)
    parts = learn(lesson(tmp_path / "parts"))
    assert [p.steps for p in parts] == [0, 16, 32, 48, 64]
    assert [p.welfare for p in parts] == [p.welfare for p in whole]
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(PeergridError, match="player=shared, not player=central"):
        learn(lesson(tmp_path, player="central"))
    with pytest.raises(PeergridError, match="unknown key pass "):
        learn(lesson(tmp_path, **{"pass": 3}))
    rounds = replace(SCENARIO, market=replace(SCENARIO.market, correction_rounds=2))
    with pytest.raises(PeergridError, match="correction_rounds=1, not 2"):
        learn(lesson(tmp_path, scenario=rounds))


def test_the_transformer_predicts_the_operator_behind_the_one_that_keeps_slopes():
    plain = Simulation(SCENARIO, num_envs=2, predictor="transformer")
    kept = differentiable(SCENARIO, 2, "auto")
    for simulation in (plain, kept):
        simulation.reset(seed=1)
    np.testing.assert_array_equal(plain.seen, kept.seen)


def test_what_starts_from_a_file_first_does_as_the_file_does(tmp_path):
    taught = learn(lesson(tmp_path / "taught", steps=32))
    start = str(tmp_path / "taught" / "policy.safetensors")
    more = learn(lesson(tmp_path / "more", steps=16, start=start, learning_rate=1.0e-9))
    np.testing.assert_allclose([point.welfare for point in more], taught[-1].welfare, rtol=1.0e-6)
