"""The batch shell: what it keeps of the interval that begins, which rows it touches, what a row alone remembers."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.transactive.scenario import load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.grid.errors import PeergridError

SHORT = replace(load_scenario("ieee37"), intervals=3)
MARKETS = {
    "p2p_trading": lambda n: Simulation(num_envs=n, predictor="none", max_cycles=3),
    "transactive": lambda n: Transactive(SHORT, num_envs=n),
}
every_market = pytest.mark.parametrize("market", MARKETS)


def begun(market, n=3):
    batch = MARKETS[market](n)
    batch.reset(seed=5)
    n_numbers = {"p2p_trading": 4, "transactive": 3}[market]
    return batch, np.random.default_rng(0).uniform(-1, 1, (n, batch.n_agent, n_numbers))


def arrays_of(thing):
    if isinstance(thing, np.ndarray):
        return [thing]
    return [a for f in fields(thing) for a in arrays_of(getattr(thing, f.name))] if is_dataclass(thing) else []


def assert_same(one, other):
    for a, b in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


@every_market
def test_the_interval_is_worked_out_once_for_each_state(market):
    batch, actions = begun(market)
    before = batch.now()
    assert batch.now() is before
    batch.step(actions)
    assert batch.now() is not before


@every_market
@pytest.mark.parametrize("changed", ["state", "days", "params"])
def test_the_interval_is_worked_out_anew_where_its_origins_are_others(market, changed):
    batch, _ = begun(market)
    before = batch.now()
    setattr(batch, changed, replace(getattr(batch, changed)))
    assert batch.now() is not before
    assert_same(batch.now(), before)


@every_market
def test_after_a_step_of_some_rows_the_interval_is_that_of_every_row(market):
    batch, actions = begun(market)
    rows = np.array([True, False, True])
    batch.step(actions, rows)
    for i in range(3):
        alone = batch.row(i)
        assert_same(alone.now(), type(alone)._current(alone, *alone.running()))
    assert len(arrays_of(batch.now())[0]) == 3


@every_market
def test_rows_that_are_not_marked_stay_as_they_are(market):
    batch, actions = begun(market)
    before, rows = batch.row(1), np.array([True, False, True])
    batch.step(actions, rows)
    batch.reset(seed=9, rows=rows)
    after = batch.row(1)
    assert_same(before.state, after.state)
    assert_same(before.days, after.days)
    np.testing.assert_array_equal(before.seen, after.seen)


@every_market
def test_a_row_alone_forgets_the_outcome_of_the_day_before(market):
    batch, actions = begun(market)
    batch.step(actions)
    assert all(batch.row(i).outcome is not None for i in range(3))
    batch.reset(rows=np.array([False, True, False]))
    assert [batch.row(i).outcome is None for i in range(3)] == [False, True, False]


@every_market
def test_what_is_seen_is_what_would_be_seen_anew(market):
    batch, actions = begun(market)
    seen, _ = batch.step(actions, np.array([False, True, True]))
    np.testing.assert_array_equal(seen, batch.observe())


@every_market
def test_nothing_runs_before_the_first_reset(market):
    batch = MARKETS[market](2)
    for ask in (
        batch.running,
        batch.now,
        batch.observe,
        batch.global_state,
        lambda: batch.row(0),
        lambda: batch.is_over,
    ):
        with pytest.raises(PeergridError, match=r"call reset\(\) first"):
            ask()
    with pytest.raises(PeergridError, match=r"call reset\(\) first"):
        batch.reset(rows=np.array([True, False]))
