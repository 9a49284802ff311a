"""What is predicted of the DSO, and from what."""

from dataclasses import fields, replace

import numpy as np
import pytest

from peergrid.envs.common.entries import PRICE_UNIT_PER_KWH, bent, unbent
from peergrid.envs.microgrid import Microgrids
from peergrid.envs.p2p_trading.env import P2PTrading
from peergrid.envs.p2p_trading.observation import OPTIONS, proposals
from peergrid.envs.p2p_trading.outlook import ask, expected, moving_along, supposed
from peergrid.envs.p2p_trading.predictors import Prediction, Predictor, Question, no_prediction, oracle
from peergrid.envs.p2p_trading.scenario import build_dso
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.transition import current_interval
from peergrid.envs.p2p_trading.types import Public
from peergrid.grid.dso import DsoQuery, OpfDso, UncheckedDso
from peergrid.grid.errors import PeergridError


def halfway(steps=2, num_envs=2, scenario="ieee33_communities", predictor="none", **arguments):
    """A simulation that has played some random steps, and its current interval."""
    sim, rng = Simulation(scenario, num_envs=num_envs, predictor=predictor, **arguments), np.random.default_rng(3)
    sim.reset(seed=20)
    for _ in range(steps):
        sim.step(rng.uniform(-1, 1, (num_envs, sim.n_agent, 4)))
    return sim, current_interval(*sim.running(), sim.params)


def told(sim, now, predictor, intervals=3):
    """The four proposals of the observation, asked in several intervals, and what the predictor says to them."""
    coming = expected(*sim.running(), sim.params, intervals)
    own_kw = np.repeat(proposals(now, sim.state)[:, :, None], intervals, axis=2)
    everybody = supposed(own_kw, sim.state.last_accepted_kw[:, None])
    return own_kw, coming, ask(everybody, coming, sim.state, predictor, sim.params)


def test_without_a_predictor_everything_is_accepted_at_the_last_price_and_later_at_the_lmp():
    sim, now = halfway()
    own_kw, coming, prediction = told(sim, now, no_prediction)
    for values in (prediction.accepted_kw, prediction.accepted_low_kw, prediction.accepted_high_kw):
        np.testing.assert_array_equal(values, own_kw)
    for values in (prediction.price_per_kwh, prediction.price_low_per_kwh, prediction.price_high_per_kwh):
        np.testing.assert_array_equal(values[:, :, 0], np.repeat(sim.state.last_price_per_kwh[..., None], 4, axis=-1))
        lmp = np.broadcast_to(coming.lmp_per_kwh[:, None, 1:, None], values[:, :, 1:].shape)
        np.testing.assert_array_equal(values[:, :, 1:], lmp)


def test_the_oracle_says_what_the_dso_says_in_every_interval_to_what_is_supposed():
    sim, now = halfway()
    own_kw, coming, prediction = told(sim, now, oracle)
    dso = build_dso(sim.scenario)
    curtailed = 0
    for row, agent, ahead, option in np.ndindex(own_kw.shape):
        proposed = sim.state.last_accepted_kw[row].copy()
        proposed[agent] = own_kw[row, agent, ahead, option]
        answer = dso(
            DsoQuery(
                load_kw=coming.load_kw[row, ahead],
                load_kvar=coming.load_kvar[row, ahead],
                proposed_kw=proposed,
                lmp_per_kwh=float(coming.lmp_per_kwh[row, ahead]),
            )
        )
        place = (row, agent, ahead, option)
        curtailed += abs(answer.accepted_kw[agent] - proposed[agent]) > 1.0
        np.testing.assert_allclose(prediction.accepted_kw[place], answer.accepted_kw[agent], atol=1e-6)
        own_price = answer.price_per_kwh[dso.trade_bus[agent]]
        np.testing.assert_allclose(prediction.price_per_kwh[place], own_price, atol=1e-6)
    assert 0 < curtailed < own_kw.size
    np.testing.assert_array_equal(prediction.accepted_low_kw, prediction.accepted_high_kw)
    np.testing.assert_array_equal(prediction.price_low_per_kwh, prediction.price_high_per_kwh)


def test_the_oracle_can_ask_another_dso():
    sim, now = halfway(num_envs=1)
    unchecked = UncheckedDso(build_dso(sim.scenario))
    own_kw, _, prediction = told(sim, now, lambda question, public: oracle(question, public, dso=unchecked))
    np.testing.assert_array_equal(prediction.accepted_kw, own_kw)
    assert not np.array_equal(told(sim, now, oracle)[2].accepted_kw, own_kw)


# What is known


def test_the_interval_that_begins_is_known_and_what_it_is_off_by_persists_in_later_ones():
    sim, _ = halfway(steps=5)
    (state, days), known = sim.running(), sim.params.forecasting
    coming, t = expected(state, days, sim.params, 4), 5
    np.testing.assert_array_equal(coming.load_kw[:, 0], days.load_kw[:, t])
    np.testing.assert_array_equal(coming.lmp_per_kwh[:, 0], days.lmp_per_kwh[:, t])
    assert known.lmp_persistence == 0.6 and known.load_persistence == 0.8
    off = days.lmp_per_kwh[:, t] / days.lmp_day_ahead_per_kwh[:, t] - 1
    expected_lmp = days.lmp_day_ahead_per_kwh[:, t + 2] * (1 + 0.36 * off)
    np.testing.assert_allclose(coming.lmp_per_kwh[:, 2], expected_lmp, rtol=1e-12)
    bus = sim.params.feeder.index("30")
    off = days.load_kw[:, t, bus] / days.load_forecast_kw[:, t, bus] - 1
    expected_kw = days.load_forecast_kw[:, t + 3, bus] * (1 + 0.8**3 * off)
    np.testing.assert_allclose(coming.load_kw[:, 3, bus], expected_kw, rtol=1e-12)


def test_what_is_expected_is_nearer_to_what_comes_than_the_forecast_alone():
    sim = Simulation("ieee33", num_envs=200, predictor="none")
    sim.reset(seed=0)
    for _ in range(10):
        sim.step(np.zeros((200, 4, 4)))
    state, days = sim.running()
    coming = expected(state, days, sim.params, 2).load_kw[:, 1].sum(axis=-1)
    actual, forecast = days.load_kw[:, 11].sum(axis=-1), days.load_forecast_kw[:, 11].sum(axis=-1)
    assert np.abs(coming - actual).mean() < 0.75 * np.abs(forecast - actual).mean()


def test_nothing_expected_depends_on_what_is_to_come():
    sim, _ = halfway()
    state, days = sim.running()
    future = {name: getattr(days, name).copy() for name in ("load_kw", "load_kvar", "lmp_per_kwh", "pv_kw")}
    for values in future.values():
        values[:, 3:] *= 1.7
    changed = expected(state, replace(days, **future), sim.params, 5)
    for name, values in vars(expected(state, days, sim.params, 5)).items():
        np.testing.assert_array_equal(getattr(changed, name), values)


def test_a_predictor_is_handed_nothing_private():
    asked = []

    def curious(question, public):
        asked.append((question, public))
        return no_prediction(question, public)

    sim, _ = halfway(predictor=curious)
    assert len(asked) == 4  # about the day when it begins, and in each of three intervals
    private = {f.name for f in fields(Microgrids)} - {"rating_kw"}
    for question, public in asked:
        assert type(question) is Question and type(public) is Public
        assert not private & {f.name for f in fields(Public)}
        # The operator whose model is public knows trades by their buses alone.
        assert isinstance(public.dso, OpfDso) and not private & set(vars(public.dso))
    question = asked[-1][0]
    state, days = sim.running()
    np.testing.assert_array_equal(question.published_per_kwh, state.last_price_per_kwh)
    np.testing.assert_array_equal(question.published_lmp_per_kwh, days.lmp_per_kwh[:, 1])
    np.testing.assert_array_equal(question.load_kw[:, 0], days.load_kw[:, 2])
    everybody = np.broadcast_to(state.last_accepted_kw[:, None, None, None], question.supposed_kw.shape)
    others = ~np.broadcast_to(np.eye(4, dtype=bool)[None, :, None, None, :], question.supposed_kw.shape)
    np.testing.assert_array_equal(question.supposed_kw[others], everybody[others])


@pytest.mark.parametrize("predictor", ["none", "oracle", "transformer"])
def test_what_one_microgrid_is_told_does_not_depend_on_what_the_others_keep_to_themselves(predictor):
    sim, _ = halfway(predictor=predictor)
    grids, days = sim.params.microgrids, sim.days
    others = slice(1, None)
    secrets = {}
    for name in ("diesel_b_per_kwh", "diesel_max_kw", "battery_rating_kw", "utility_w_per_kwh"):
        values = np.array(getattr(grids, name))
        values[others] *= 0.5
        secrets[name] = values
    own = {}
    for name in ("pv_kw", "pv_forecast_kw", "demand_kw"):
        values = getattr(days, name).copy()
        values[:, :, others] *= 0.5
        own[name] = values
    before = sim.observe()[:, 0]
    sim.params = replace(sim.params, microgrids=replace(grids, **secrets))
    sim.days = replace(days, **own)
    np.testing.assert_allclose(sim.observe()[:, 0], before, rtol=1e-6, atol=1e-6)
    assert np.abs(sim.observe()[:, 1] - sim.seen[:, 1]).max() > 0.01


def test_others_are_supposed_to_move_along_in_proportion_to_their_ratings():
    sim, _ = halfway()
    last, rating = sim.state.last_accepted_kw, sim.params.microgrids.rating_kw
    own_kw = last[:, :, None, None] + np.array([0.0, 0.1]) * rating[:, None, None]
    found = moving_along(own_kw, sim.state, sim.params, 0.5)
    np.testing.assert_allclose(found[:, :, 0, 0], np.broadcast_to(last[:, None], (2, 4, 4)))
    for asking in range(4):
        moved = found[:, asking, 0, 1] - last
        expected_kw = np.where(np.arange(4) == asking, 0.1, 0.05) * rating
        room = np.abs(last) < 0.9 * rating
        np.testing.assert_allclose(moved[room], np.broadcast_to(expected_kw, moved.shape)[room], rtol=1e-9)


# Intervals ahead


def test_beyond_the_intervals_that_are_to_be_predicted_there_is_no_prediction():
    near, now = halfway(predicted_intervals=1)
    _, _, found = told(near, now, oracle)
    far, now = halfway()
    _, _, all_of_them = told(far, now, oracle)
    _, _, nothing = told(far, now, no_prediction)
    np.testing.assert_array_equal(found.price_per_kwh[:, :, :1], all_of_them.price_per_kwh[:, :, :1])
    np.testing.assert_array_equal(found.price_per_kwh[:, :, 1:], nothing.price_per_kwh[:, :, 1:])
    with pytest.raises(PeergridError, match="predicted_intervals is -1"):
        Simulation("ieee33", predictor="none", predicted_intervals=-1)
    none, now = halfway(predicted_intervals=0)
    np.testing.assert_array_equal(told(none, now, oracle)[2].price_per_kwh, nothing.price_per_kwh)


@pytest.mark.parametrize("scenario", ["ieee33", "ieee33_communities"])
def test_predictions_of_later_hours_come_near_what_the_operator_says_to_the_loads_that_come(scenario):
    """Error of the price at the own bus by hours ahead, beside that of taking the LMP for it."""
    rows, hours = 24, (1, 2, 4, 7)
    sim = Simulation(scenario, num_envs=rows, predictor="none")
    sim.reset(seed=5)
    for _ in range(15):  # to the evening, when limits bind
        sim.step(np.zeros((rows, 4, 4)))
    state, days = sim.running()
    coming, t = expected(state, days, sim.params, 8), 15
    nothing = np.zeros((rows, 4, 8, 1))
    everybody = supposed(nothing, np.zeros((rows, 1, 4)))
    predicted = ask(everybody, coming, state, oracle, sim.params).price_per_kwh[..., 0]
    truth = oracle(
        Question(
            load_kw=days.load_kw[:, t : t + 8],
            load_kvar=days.load_kvar[:, t : t + 8],
            lmp_per_kwh=days.lmp_per_kwh[:, t : t + 8],
            published_per_kwh=state.last_price_per_kwh,
            published_lmp_per_kwh=state.last_lmp_per_kwh,
            supposed_kw=everybody,
        ),
        sim.params.public,
    ).price_per_kwh[..., 0]
    lmp = np.broadcast_to(coming.lmp_per_kwh[:, None], predicted.shape)
    np.testing.assert_allclose(predicted[:, :, 0], truth[:, :, 0], atol=1e-6)
    for k in hours:
        error, blind = (np.abs(said - truth)[:, :, k].mean() for said in (predicted, lmp))
        assert error < 0.75 * blind, (k, error, blind)


# In the observation


@pytest.mark.parametrize(("predictor", "part"), [("none", no_prediction), ("oracle", oracle)])
def test_the_prediction_of_the_interval_stands_in_the_observation(predictor, part):
    sim, now = halfway(predictor=predictor)
    assert isinstance(part, Predictor) and sim.predictor is part
    seen, names = sim.observe(), [e.name for e in sim.entries]
    _, _, prediction = told(sim, now, part, intervals=1)
    rating = sim.params.microgrids.rating_kw
    for k, option in enumerate(OPTIONS):
        accepted_kw, price = prediction.accepted_kw[:, :, 0, k], prediction.price_per_kwh[:, :, 0, k]
        found = seen[..., names.index(f"{option}: predicted acceptance")]
        np.testing.assert_allclose(found, accepted_kw / rating, rtol=1e-4, atol=1e-6)
        found = unbent(seen[..., names.index(f"{option}: predicted nodal price")])
        np.testing.assert_allclose(found, np.clip(price, -1, 1), rtol=1e-4, atol=1e-6)
        for what in ("acceptance, below", "acceptance, above", "nodal price, below", "nodal price, above"):
            assert not seen[..., names.index(f"{option}: predicted {what}")].any()  # these intervals are points


def test_how_far_a_prediction_may_be_off_stands_in_the_observation():
    sim, now = halfway(predictor="transformer")
    seen, names = sim.observe(), [e.name for e in sim.entries]
    _, _, found = told(sim, now, sim.predictor, intervals=1)
    price, low, high = (bent(getattr(found, f"price{end}_per_kwh")[:, :, 0, 3]) for end in ("", "_low", "_high"))
    for what, room in (("below", low - price), ("above", high - price)):
        told_room = seen[..., names.index(f"full export: predicted nodal price, {what}")]
        np.testing.assert_allclose(told_room, room, rtol=1e-3, atol=1e-4)
        assert np.abs(told_room).max() > 0.01


def test_prices_ahead_are_those_foretold_above_the_lmp_that_is_expected():
    sim, _ = halfway(predictor="oracle", steps=4)
    seen, names = sim.observe(), [e.name for e in sim.entries]
    lmp = expected(*sim.running(), sim.params, 8).lmp_per_kwh
    for k in (1, 7):
        for option, name in enumerate(("no trade", "full import", "full export")):
            above = sim.foretold.above_lmp_per_kwh[:, :, 4 + k, option]
            found = unbent(seen[..., names.index(f"{name} in {k} intervals: predicted nodal price")])
            np.testing.assert_allclose(found, np.clip(above + lmp[:, k, None], -1.0, 1.0), rtol=1e-4, atol=1e-6)
    assert (sim.foretold.above_lmp_per_kwh[..., 1] >= sim.foretold.above_lmp_per_kwh[..., 2] - 1e-6).all()


def test_an_observation_that_looks_at_this_interval_alone_has_the_lmp_for_later_prices():
    near, far = (halfway(predictor="oracle", predicted_intervals=n)[0] for n in (1, None))
    names = [e.name for e in near.entries]
    later = [k for k, name in enumerate(names) if "intervals: predicted nodal price" in name]
    lmp = [names.index(f"LMP expected in {k} intervals") for k in range(1, 8)]
    prices, below, above = near.seen[..., later].reshape(2, 4, 3, 7, 3).transpose(2, 4, 0, 1, 3)
    for price in prices:
        np.testing.assert_allclose(unbent(price), PRICE_UNIT_PER_KWH * near.seen[..., lmp], rtol=1e-5)
    assert not below.any() and not above.any()
    now = [k for k in range(len(names)) if k not in later]
    np.testing.assert_array_equal(near.seen[..., now], far.seen[..., now])
    assert np.abs(near.seen - far.seen).max() > 0.1


def test_ones_own_predictor_is_asked_about_the_day_and_then_in_every_interval():
    asked = []

    def gloomy(question, public):
        asked.append(question)
        nothing = np.zeros_like(question.own_kw)
        blind = no_prediction(question, public)
        return replace(blind, accepted_kw=nothing, accepted_low_kw=nothing, price_per_kwh=nothing + 0.5)

    env = P2PTrading("ieee33", predictor=gloomy, max_cycles=2)
    observations, _ = env.reset(seed=0)
    names = [e.name for e in env.describe_observation("microgrid_0")]
    for own in observations.values():
        assert own[names.index("full export: predicted acceptance")] == 0.0
        price = own[[names.index("full import: predicted nodal price")]]
        np.testing.assert_allclose(unbent(price), 0.5, rtol=1e-5)
    env.step({a: np.zeros(4) for a in env.agents})
    assert [q.lmp_per_kwh.shape[1] for q in asked] == [2 + 8, 1, 1]
    days = env.simulation.days
    np.testing.assert_array_equal(asked[0].load_kw, days.load_forecast_kw)
    np.testing.assert_array_equal(asked[0].lmp_per_kwh, days.lmp_day_ahead_per_kwh)


def test_a_prediction_of_the_wrong_shape_fails_while_testing():
    with pytest.raises(Exception, match="Type-check"):
        Prediction(**dict.fromkeys(Prediction.__dataclass_fields__, np.zeros(3)))
