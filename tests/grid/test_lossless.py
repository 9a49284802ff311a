"""The linear power flow, by hand and beside the exact one."""

import numpy as np
import torch

from peergrid.grid import load_feeder, solve_power_flow
from peergrid.grid.lossless import lossless_flow, lossless_maps


def test_hardly_any_power_flows_as_the_exact_power_flow_says():
    # A thousandth of the power has a thousandth of the voltage drop, and a millionth of the losses.
    feeder = load_feeder("ieee33")
    net_kw, net_kvar = -1e-3 * feeder.load_kw, -1e-3 * feeder.load_kvar
    exact = solve_power_flow(feeder, net_kw, net_kvar)
    found = lossless_flow(net_kw, net_kvar + feeder.capacitor_kvar, feeder.v_source_pu, **vars(lossless_maps(feeder)))
    np.testing.assert_allclose(found.squared_voltage, exact.voltage_pu**2, atol=1e-8)
    np.testing.assert_allclose(found.p[1:] * feeder.base_kva, exact.flow_kw[1:], rtol=1e-3)
    np.testing.assert_allclose(found.q[1:] * feeder.base_kva, exact.flow_kvar[1:], rtol=1e-3)


def test_exports_raise_voltages_and_a_batch_equals_its_rows():
    feeder = load_feeder("ieee33")
    maps = vars(lossless_maps(feeder))
    net_kw, net_kvar = np.zeros((2, 33)), np.zeros((2, 33))
    net_kw[1, 17] = 500.0
    found = lossless_flow(net_kw, net_kvar, 1.0, **maps)
    np.testing.assert_array_equal(found.squared_voltage[0], 1.0)
    assert (found.squared_voltage[1, 1:] > 1.0).all()
    np.testing.assert_allclose(found.p[1, 17] * feeder.base_kva, -500.0)
    alone = lossless_flow(net_kw[1], net_kvar[1], 1.0, **maps)
    for one, other in zip(alone, found, strict=True):
        np.testing.assert_allclose(one, other[1], atol=1e-12)


def test_tensors_get_the_same_answer():
    feeder, rng = load_feeder("ieee33"), np.random.default_rng(0)
    net_kw, net_kvar = rng.normal(0.0, 100.0, (2, 5, 33))
    maps = vars(lossless_maps(feeder))
    found = lossless_flow(
        torch.tensor(net_kw), torch.tensor(net_kvar), 1.0, **{name: torch.tensor(x) for name, x in maps.items()}
    )
    for one, other in zip(found, lossless_flow(net_kw, net_kvar, 1.0, **maps), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
