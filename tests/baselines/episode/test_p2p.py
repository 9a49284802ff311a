from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peergrid.baselines.episode.p2p import PARTS, Episode, play_episode, tables, write_tables
from peergrid.baselines.policies.fixed import RandomPolicy, Truthful
from peergrid.envs import p2p_trading_v0
from peergrid.envs.p2p_trading.mechanisms import pairs_kw
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import UnknownName


def played(scenario="ieee33_communities", intervals=6, policy=None) -> tuple[Episode, list]:
    """A morning of truthful trades, and the outcomes that the environment showed on the way."""
    env = p2p_trading_v0.parallel_env(scenario=scenario, max_cycles=intervals)
    outcomes = []
    episode = play_episode(env, policy or Truthful(), day=1, after_each=lambda: outcomes.append(env.last_outcome))
    return episode, outcomes


@pytest.fixture(scope="module")
def morning():
    return played()


def test_the_record_is_what_the_environment_showed(morning):
    episode, outcomes = morning
    assert episode.intervals == len(outcomes) == 6
    for t, outcome in enumerate(outcomes):
        np.testing.assert_array_equal(episode.accepted_kw[t], outcome.response.accepted_kw[0])
        np.testing.assert_array_equal(episode.voltage_pu[t], outcome.response.voltage_pu[0])
        np.testing.assert_array_equal(episode.price_parts.voltage[t], outcome.response.price_parts.voltage[0])
        np.testing.assert_array_equal(episode.stored_kwh[t + 1], outcome.stored_kwh[0])
        assert episode.welfare[t] == outcome.welfare[0]
    np.testing.assert_array_equal(episode.stored_kwh[0], episode.params.initial_kwh)


def test_parts_of_money_add_up_to_the_gain_and_payments_to_the_bill(morning):
    episode, outcomes = morning
    money = episode.money
    np.testing.assert_allclose(money.total(), episode.gain, atol=1e-9)
    bill = np.stack([outcome.bills.total[0] for outcome in outcomes])
    np.testing.assert_allclose(money.contract + money.network_charge + money.deviation, -bill, atol=1e-12)
    assert (money.utility > 0).any() and (money.generation <= 0).all() and (money.wear <= 0).all()
    np.testing.assert_allclose(money.contract.sum(axis=1), 0.0, atol=1e-9)


def test_a_day_that_terminates_pays_for_the_energy_left():
    scenario = replace(load_scenario("ieee33"), horizon="terminate", daily_cycle=False, intervals=3)
    episode, _ = played(scenario, intervals=3, policy=RandomPolicy())
    assert (episode.money.stored_energy[:-1] == 0).all()
    assert np.abs(episode.money.stored_energy[-1]).max() > 1e-3
    np.testing.assert_allclose(episode.money.total(), episode.gain, atol=1e-9)


def test_trades_balance_between_sellers_and_buyers(morning):
    episode, _ = morning
    np.testing.assert_allclose(episode.trade_kw.sum(axis=2), np.maximum(episode.contract_kw, 0), atol=1e-9)
    np.testing.assert_allclose(episode.trade_kw.sum(axis=1), np.maximum(-episode.contract_kw, 0), atol=1e-9)
    np.testing.assert_allclose(
        pairs_kw(np.array([6.0, 2.0, -4.0, -4.0])), [[0, 0, 3, 3], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    )
    assert (pairs_kw(np.zeros(3)) == 0).all()


def test_batteries_and_energy_balance(morning):
    episode, _ = morning
    sources_kw = episode.pv_kw + episode.diesel_kw + episode.battery_kw - episode.consumption_kw
    np.testing.assert_allclose(sources_kw, episode.accepted_kw, atol=1e-6)
    # What the network takes in is what loads and losses use.
    in_kw = episode.substation_kw + episode.generator_kw.sum(axis=1) + episode.accepted_kw.sum(axis=1)
    used_kw = (episode.load_kw - episode.shed_kw).sum(axis=1) + episode.losses_kw
    np.testing.assert_allclose(in_kw, used_kw, atol=0.5)


def test_tables_have_a_row_for_everything_and_prices_add_up(morning):
    episode, _ = morning
    made = tables(episode)
    assert len(made["intervals"]) == 6 and len(made["buses"]) == 6 * 33 and len(made["microgrids"]) == 6 * 4
    buses = made["buses"]
    np.testing.assert_allclose(
        buses[[f"price_{part}_per_kwh" for part in PARTS]].sum(axis=1), buses["price_per_kwh"], atol=1e-6
    )
    at = buses[(buses["interval"] == 4) & (buses["bus"] == "18")].iloc[0]
    assert at["voltage_pu"] == episode.voltage_pu[4, episode.params.feeder.index(18)]
    own = made["microgrids"]
    at = own[(own["interval"] == 2) & (own["microgrid"] == 3)].iloc[0]
    assert at["gain"] == episode.gain[2, 3] and at["stored_kwh"] == episode.stored_kwh[3, 3]
    sold = made["trades"].groupby("interval")["trade_kw"].sum()
    np.testing.assert_allclose(sold, episode.trade_kw.sum(axis=(1, 2))[sold.index])


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_are_read_back_as_they_were(morning, tmp_path, kind):
    episode, _ = morning
    files = write_tables(episode, tmp_path / "tables", kind)
    assert sorted(f.stem for f in files) == ["buses", "intervals", "microgrids", "trades"]
    read = {"parquet": pd.read_parquet, "csv": lambda f: pd.read_csv(f, dtype={"bus": str})}[kind]
    for file in files:
        pd.testing.assert_frame_equal(read(file), tables(episode)[file.stem], check_dtype=kind == "parquet")


def test_another_kind_of_table_is_refused(morning, tmp_path):
    with pytest.raises(UnknownName, match="parquet"):
        write_tables(morning[0], tmp_path, "xlsx")
