"""The model: its features against a power flow by hand, its groups, and what it takes to another feeder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario
from peergrid.grid.power_flow import solve_power_flow
from peergrid.surrogate.model import FEATURES, N_GROUPS, DsoTransformer, ModelConfig, restore_price, transform_price
from peergrid.surrogate.report.transfer import transferred
from peergrid.surrogate.sampling import Sampling, Shard, draw

SCENARIO = "ieee33_communities"
SMALL = ModelConfig(width=16, layers=2, heads=2, feed_forward=32)


@pytest.fixture(scope="module")
def samples():
    return draw(Shard(load_scenario(SCENARIO), "any", Sampling(), 0, 0, 2))


@pytest.fixture(scope="module")
def inputs(samples):
    return samples.questions.each(torch.tensor)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DsoTransformer(build_dso(load_scenario(SCENARIO)), SMALL)


def test_lossless_features_are_those_of_a_power_flow_on_a_feeder_with_hardly_any_losses(model, samples, inputs):
    # A thousandth of the power has a thousandth of the voltage drop, and a millionth of the losses.
    dso = build_dso(load_scenario(SCENARIO))
    feeder, share = dso.feeder, 1e-3
    powers = {name: x * share for name, x in inputs.columns().items() if name.endswith(("_kw", "_kvar"))}
    few = replace(inputs, **powers)
    found = dict(zip(FEATURES, model.network.features(few).double().unbind(-1), strict=True))
    at_trades = np.zeros_like(samples.load_kw, dtype=float)
    np.add.at(at_trades, (slice(None), dso.trade_bus), samples.proposed_kw.astype(float))
    for with_trades, name in ((0.0, "without trades"), (1.0, "with trades")):
        net_kw = share * (with_trades * at_trades - samples.load_kw)
        flow = solve_power_flow(feeder, net_kw, -share * samples.load_kvar.astype(float))
        drop = flow.voltage_pu**2 - feeder.v_source_pu**2
        np.testing.assert_allclose(found[f"squared lossless voltage {name}"] - feeder.v_source_pu**2, drop, atol=1e-6)


def test_transformed_prices_come_back(inputs, samples):
    price = torch.tensor(samples.price_per_kwh)
    again = restore_price(transform_price(price, inputs.lmp_per_kwh), inputs.lmp_per_kwh)
    assert torch.allclose(again, price, rtol=1e-4, atol=1e-5)


def test_a_higher_price_never_lowers_an_injection(model, inputs):
    prices = torch.linspace(-1.0, 1.0, 21)
    accepted = torch.stack([model.network.accepted(inputs, x.expand_as(inputs.proposed_kw)) for x in prices])
    assert (accepted.diff(dim=0) >= 0).all()
    assert (accepted.abs() <= inputs.proposed_kw.abs()).all()
    assert (accepted * inputs.proposed_kw >= 0).all()


def test_groups_tell_cut_trades_from_whole_ones(model, inputs):
    with torch.no_grad():
        found = model(inputs, only_trades=True)
    group = model.group(inputs, found)
    is_cut = (found.accepted_kw - inputs.proposed_kw).abs() > 1e-3 * inputs.proposed_kw.abs()
    assert torch.equal(group >= N_GROUPS // 2, is_cut)


def test_the_encoder_moves_to_another_feeder_and_the_buses_do_not(model):
    there = transferred(model, build_dso(load_scenario("ieee69")))
    assert there.bus.shape == (69, SMALL.width)
    assert torch.equal(there.bus[3], model.bus.mean(0))
    for name, values in model.state_dict().items():
        if name != "bus":
            assert torch.equal(there.state_dict()[name], values), name
