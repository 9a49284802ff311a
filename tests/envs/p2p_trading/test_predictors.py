"""What is predicted of the DSO, and from what."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.observation import OPTIONS, PRICE_UNIT_PER_KWH, ask, proposals
from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question, no_prediction, oracle
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.envs.scenario import build_dso
from peergrid.grid.dso import DsoQuery, UncheckedDso


def halfway(steps=2, num_envs=2, scenario="ieee33_communities", **arguments):
    """A simulation that has played some random steps, and its current interval."""
    sim, rng = Simulation(scenario, num_envs=num_envs, **arguments), np.random.default_rng(3)
    sim.reset(seed=20)
    for _ in range(steps):
        sim.step(rng.uniform(-1, 1, (num_envs, sim.n_agent, 4)))
    return sim, current_interval(*sim.running(), sim.params)


def test_without_a_predictor_everything_is_accepted_at_the_price_published_last():
    sim, now = halfway()
    asked = proposals(now, sim.state)
    prediction = ask(asked, now, sim.state, no_prediction, sim.params)
    price = np.repeat(sim.state.last_price_per_kwh[..., None], 3, axis=-1)
    for values in (prediction.accepted_kw, prediction.accepted_low_kw, prediction.accepted_high_kw):
        np.testing.assert_array_equal(values, asked)
    for values in (prediction.price_per_kwh, prediction.price_low_per_kwh, prediction.price_high_per_kwh):
        np.testing.assert_array_equal(values, price)


def test_the_oracle_says_what_the_dso_says_with_the_others_where_they_were():
    sim, now = halfway()
    asked = proposals(now, sim.state)
    prediction = ask(asked, now, sim.state, oracle, sim.params)
    dso = build_dso(sim.scenario)
    curtailed = 0
    for row, agent, option in np.ndindex(asked.shape):
        proposed = sim.state.last_accepted_kw[row].copy()
        proposed[agent] = asked[row, agent, option]
        answer = dso(
            DsoQuery(
                load_kw=now.load_kw[row],
                load_kvar=now.load_kvar[row],
                proposed_kw=proposed,
                lmp_per_kwh=float(now.lmp_per_kwh[row]),
            )
        )
        curtailed += abs(answer.accepted_kw[agent] - proposed[agent]) > 1.0
        np.testing.assert_allclose(prediction.accepted_kw[row, agent, option], answer.accepted_kw[agent], atol=1e-6)
        own_price = answer.price_per_kwh[dso.trade_bus[agent]]
        np.testing.assert_allclose(prediction.price_per_kwh[row, agent, option], own_price, atol=1e-6)
    assert 0 < curtailed < asked.size
    np.testing.assert_array_equal(prediction.accepted_low_kw, prediction.accepted_high_kw)
    np.testing.assert_array_equal(prediction.price_low_per_kwh, prediction.price_high_per_kwh)


def test_the_oracle_can_ask_another_dso():
    sim, now = halfway(num_envs=1)
    asked = proposals(now, sim.state)
    question = Question(
        load_kw=now.load_kw,
        load_kvar=now.load_kvar,
        lmp_per_kwh=now.lmp_per_kwh,
        published_kw=sim.state.last_accepted_kw,
        published_price_per_kwh=sim.state.last_price_per_kwh,
        proposed_kw=asked,
    )
    np.testing.assert_array_equal(
        oracle(question, sim.params, dso=UncheckedDso(build_dso(sim.scenario))).accepted_kw, asked
    )
    assert not np.array_equal(oracle(question, sim.params).accepted_kw, asked)


@pytest.mark.parametrize(("predictor", "part"), [("none", no_prediction), ("oracle", oracle)])
def test_the_prediction_stands_in_the_observation(predictor, part):
    sim, now = halfway(predictor=predictor)
    assert isinstance(part, Predictor) and sim.predictor is part
    seen, names = sim.observe(), [e.name for e in sim.entries]
    asked = proposals(now, sim.state)
    prediction = ask(asked, now, sim.state, part, sim.params)
    rating = sim.params.microgrids.rating_kw
    for k, option in enumerate(OPTIONS):
        for what, field in (("", ""), (", low", "_low"), (", high", "_high")):
            accepted = seen[..., names.index(f"{option}: predicted acceptance{what}")]
            expected = getattr(prediction, f"accepted{field}_kw")[..., k] / rating
            np.testing.assert_allclose(accepted, expected, rtol=1e-4, atol=1e-6)
            price = seen[..., names.index(f"{option}: predicted nodal price{what}")]
            expected = np.clip(getattr(prediction, f"price{field}_per_kwh")[..., k], -1, 1) / PRICE_UNIT_PER_KWH
            np.testing.assert_allclose(price, expected, rtol=1e-4, atol=1e-5)


def test_ones_own_predictor_is_asked_what_a_microgrid_may_know():
    asked = []

    def gloomy(question, params):
        asked.append(question)
        nothing = np.zeros_like(question.proposed_kw)
        dear = nothing + 0.5
        return replace(
            no_prediction(question, params), accepted_kw=nothing, accepted_low_kw=nothing, price_per_kwh=dear
        )

    env = P2PTrading("ieee33", predictor=gloomy, max_cycles=2)
    observations, _ = env.reset(seed=0)
    names = [e.name for e in env.describe_observation("microgrid_0")]
    for own in observations.values():
        assert own[names.index("full export: predicted acceptance")] == 0.0
        np.testing.assert_allclose(own[names.index("full import: predicted nodal price")], 5.0)
    env.step({a: np.zeros(4) for a in env.agents})
    question, params = asked[-1], env.simulation.params
    np.testing.assert_array_equal(question.published_kw, env.last_outcome.response.accepted_kw)
    np.testing.assert_array_equal(
        question.published_price_per_kwh, env.last_outcome.response.price_per_kwh[:, params.trade_bus]
    )
    np.testing.assert_array_equal(question.load_kw, env.simulation.days.load_kw[:, 1])


def test_a_prediction_of_the_wrong_shape_fails_while_testing():
    with pytest.raises(Exception, match="Type-check"):
        Prediction(**dict.fromkeys(Prediction.__dataclass_fields__, np.zeros(3)))
