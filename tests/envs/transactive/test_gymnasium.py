"""Gymnasium's view: the DSO sets the signal, the agents answer at once."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import peergrid  # noqa: F401, importing it registers the environments
from peergrid.baselines.policies.transactive import Myopic, Optimising
from peergrid.envs.transactive.gymnasium import DsoPricing
from peergrid.envs.transactive.infos import NETWORK_INFOS
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing
from peergrid.grid.errors import InvalidAction, PeergridError, UnknownName

NAME = "peergrid/DsoPricing-v0"
BASE = load_scenario("ieee37")
SHORT = replace(BASE, intervals=4)


def begun(seed=0, agents="optimising", **arguments):
    env = DsoPricing(agents, **{"scenario": SHORT} | arguments)
    env.reset(seed=seed)
    return env


def price(share):
    return np.array([share], dtype=np.float32)


def test_it_is_the_simulation_whose_agents_hear_the_signal_before_they_answer():
    scenario = replace(SHORT, loop=replace(SHORT.loop, max_iterations=8))
    env, simulation, policy = DsoPricing(scenario=scenario), Transactive(scenario), Optimising()
    rng, over = np.random.default_rng(0), False
    seen, info = env.reset(seed=3)
    simulation.reset(seed=3)
    assert list(info) == list(NETWORK_INFOS) and not any(info.values())
    while not over:
        np.testing.assert_array_equal(seen, simulation.seen_by_dso[0])
        share = rng.uniform(-1, 1)
        seen, reward, terminated, over, info = env.step(price(share))
        simulation.announce(np.array([np.float32(share)], dtype=float))
        signal = simulation.running()[0].root_per_kwh[0]
        asked = policy.act_rows(simulation, simulation.seen)
        _, outcome = simulation.step(asked, dso_actions=np.array([np.float32(share)], dtype=float))
        np.testing.assert_allclose(
            [signal, info["root_per_kwh"]], (1 + 0.2 * share) * outcome.base_per_kwh[0], rtol=1e-6
        )
        assert (reward, info["gap_kw"]) == (outcome.dso_reward[0], outcome.gap_kw[0])
        np.testing.assert_allclose(reward, -BASE.imbalance_spread * info["lmp_per_kwh"] * abs(info["gap_kw"]))
        assert list(info) == list(NETWORK_INFOS) and not terminated
    assert simulation.is_over.all() and env.observation_space.contains(seen)


def test_a_higher_signal_draws_less_from_upstream():
    imports = [begun(scenario=BASE).step(price(share))[4]["import_kw"] for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    assert (np.diff(imports) < 0.1).all() and imports[0] - imports[-1] > 50


def test_agents_who_keep_to_their_schedule_do_not_hear_the_signal():
    imports = [begun(agents="scheduled").step(price(share))[4]["import_kw"] for share in (-1.0, 1.0)]
    assert imports[0] == imports[1]


def test_an_hour_closes_where_the_signal_is_repeated():
    env = begun(scenario=replace(SHORT, loop=replace(SHORT.loop, threshold_share=0.0)))
    told = [env.step(price(share))[4] for share in (0.3, -0.3, 0.1, 0.1)]
    assert [t["closing"] for t in told] == [Closing.OPEN] * 3 + [Closing.SIGNAL_STANDS]
    assert [t["interval"] for t in told] == [0.0] * 4 and env.step(price(0.1))[4]["interval"] == 1.0


def test_an_hour_closes_at_once_at_the_bound_that_the_gap_asks_for():
    env = begun(scenario=replace(SHORT, loop=replace(SHORT.loop, threshold_share=0.0)), agents="scheduled")
    gap = env.step(price(0.0))[4]["gap_kw"]
    assert gap != 0 and env.step(price(-np.sign(gap)))[4]["closing"] == Closing.OPEN
    assert env.step(price(np.sign(gap)))[4]["closing"] == Closing.SIGNAL_STANDS


@pytest.mark.parametrize("agents", ["myopic", Myopic, Myopic(), "peergrid.baselines.policies.transactive:Myopic"])
def test_agents_may_be_named_made_or_given(agents):
    env = begun(agents=agents)
    reward = env.step(price(0.5))[1]
    assert reward == begun(agents="myopic").step(price(0.5))[1]


def test_the_observation_is_described_entry_by_entry():
    env = DsoPricing()
    described = env.describe_observation()
    np.testing.assert_array_equal(env.observation_space.low, np.array([e.low for e in described], dtype=np.float32))
    np.testing.assert_array_equal(env.observation_space.high, np.array([e.high for e in described], dtype=np.float32))


def test_the_dso_sees_the_signal_that_it_set_and_the_gap_that_it_left():
    env = begun(scenario=replace(SHORT, loop=replace(SHORT.loop, threshold_share=0.0)), agents="scheduled")
    names = [e.name for e in env.describe_observation()]
    seen, *_, info = env.step(price(0.3))
    entries = dict(zip(names, seen.tolist(), strict=True))
    size = env.simulation.params.feeder.base_kva
    np.testing.assert_allclose(entries["root signal"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(entries["gap in the last iteration of this hour"], 10 * info["gap_kw"] / size, rtol=1e-5)
    np.testing.assert_allclose(entries["share of the hour's iterations done"], 1 / 30, rtol=1e-5)


def test_an_evaluation_day_is_the_same_whatever_the_seed():
    env = DsoPricing(scenario=SHORT)
    day, _ = env.reset(seed=1, options={"evaluation_day": 2})
    np.testing.assert_array_equal(env.reset(seed=5, options={"evaluation_day": 2})[0], day)
    assert not np.array_equal(env.reset(options={"evaluation_day": 3})[0], day)


def test_actions_that_mean_nothing_are_refused_and_nothing_is_played():
    env = DsoPricing(scenario=SHORT, max_cycles=1, agents="myopic")
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step(price(0.0))
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"shape \(2,\), not \(1,\)"):
        env.step(np.zeros(2))
    with pytest.raises(InvalidAction, match="not finite"):
        env.step(price(np.nan))
    assert env.simulation.running()[0].steps.tolist() == [0]
    beyond = env.step(price(7.0))[4]
    np.testing.assert_allclose(beyond["root_per_kwh"], 1.2 * beyond["base_per_kwh"])
    with pytest.raises(PeergridError, match=r"call reset\(\)"):
        env.step(price(0.0))


def test_gymnasium_makes_it_by_its_id_with_all_arguments():
    env = gymnasium.make(NAME, scenario=SHORT, agents="myopic", dso="conic", max_cycles=2)
    inner = env.unwrapped
    assert isinstance(inner, DsoPricing) and isinstance(inner.player.agents, Myopic)
    assert inner.simulation.scenario.dso.solver == "conic" and inner.simulation.max_cycles == 2
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(2)] == [False, True]
    with pytest.raises(TypeError, match="senario"):
        gymnasium.make(NAME, senario="ieee37")
    with pytest.raises(UnknownName, match=r"no policy is named 'myopik'. Did you mean 'myopic'"):
        gymnasium.make(NAME, agents="myopik")
    with pytest.raises(UnknownName, match="no render mode"):
        DsoPricing(render_mode="rgb")
