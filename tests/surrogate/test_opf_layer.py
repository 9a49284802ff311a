"""The optimal power flow as a layer: the DSO's own responses, and gradients that a network can learn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso
from peergrid.grid.errors import InvalidQuery
from peergrid.surrogate.opf_layer import OpfLayer

N = 8


@pytest.fixture
def dso():
    feeder = replace(load_feeder("ieee33"), v_min_pu=np.full(33, 0.95), v_max_pu=np.full(33, 1.05))
    return OpfDso(feeder, [feeder.index(name) for name in ("17", "22", "25", "32")])


@pytest.fixture
def inputs(dso):
    """Proposals, loads and the price of energy; some proposals are curtailed."""
    rng = np.random.default_rng(3)
    share = rng.uniform(0.4, 0.7, (N, 1))
    given = (
        rng.uniform(-900.0, 900.0, (N, 4)),
        share * dso.feeder.load_kw,
        share * dso.feeder.load_kvar,
        np.full(N, 0.1),
    )
    return tuple(torch.tensor(values) for values in given)


def test_the_layer_answers_as_the_operator_does(dso, inputs):
    names = ("proposed_kw", "load_kw", "load_kvar", "lmp_per_kwh")
    response = dso(DsoQuery(**{name: x.numpy() for name, x in zip(names, inputs, strict=True)}))
    found = OpfLayer(dso)(*inputs)
    for name, values in found._asdict().items():
        np.testing.assert_array_equal(values.numpy(), getattr(response, name), err_msg=name)
    curtailed = found.accepted_kw.abs() < inputs[0].abs() - 1.0
    assert curtailed.any() and not curtailed.all()


@pytest.mark.parametrize("which", ["proposed_kw", "lmp_per_kwh"])
def test_gradients_pass_torchs_own_check(dso, inputs, which):
    layer, place = OpfLayer(dso), {"proposed_kw": 0, "lmp_per_kwh": 3}[which]
    given = [x[:2] for x in inputs]

    def answer(x):
        found = layer(*(x if i == place else other for i, other in enumerate(given)))
        return found.accepted_kw, found.voltage_pu, found.substation_kw

    x = given[place].requires_grad_()
    eps = 1e-2 if which == "proposed_kw" else 1e-5
    assert torch.autograd.gradcheck(answer, (x,), eps=eps, atol=1e-3, rtol=1e-3)


def test_inputs_that_are_broadcast_collect_their_gradient(dso, inputs):
    layer, (proposed, load, reactive, _) = OpfLayer(dso), inputs
    limit = torch.tensor(0.95, dtype=torch.float64, requires_grad=True)
    single = torch.full((N, 33), 0.95, dtype=torch.float64, requires_grad=True)
    lmp = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    for v_min in (limit, single):
        layer(proposed, load, reactive, lmp, v_min_pu=v_min).price_per_kwh.sum().backward()
    assert limit.grad.shape == lmp.grad.shape == ()
    torch.testing.assert_close(limit.grad, single.grad.sum())
    assert limit.grad != 0 and lmp.grad != 0


def test_types_of_inputs_are_kept(dso, inputs):
    given = [x.float().requires_grad_() for x in inputs]
    found = OpfLayer(dso)(*given)
    assert found.accepted_kw.dtype == torch.float32 and found.status.dtype == torch.int64
    found.accepted_kw.sum().backward()
    assert given[0].grad.dtype == torch.float32 and given[0].grad.abs().max() > 0


def test_a_response_that_failed_teaches_nothing(dso, inputs):
    proposed = inputs[0].clone().requires_grad_()
    found = OpfLayer(dso)(proposed, *inputs[1:], v_min_pu=torch.tensor(1.03), v_max_pu=torch.tensor(1.05))
    assert (found.status == int(DsoStatus.INFEASIBLE)).all()
    found.price_per_kwh.sum().backward()
    assert (proposed.grad == 0).all()


def test_bad_input_is_refused_as_by_the_operator(dso, inputs):
    with pytest.raises(InvalidQuery, match="proposed_kw is not finite"):
        OpfLayer(dso)(inputs[0] * torch.nan, *inputs[1:])


def test_proposals_learn_what_the_network_takes(dso, inputs):
    """Gradient descent on what is curtailed ends with proposals that are accepted whole."""
    layer, proposed = OpfLayer(dso), inputs[0].clone().requires_grad_()
    optimizer = torch.optim.Adam([proposed], lr=10.0)

    def curtailed():
        return (proposed - layer(proposed, *inputs[1:]).accepted_kw).square().sum()

    before = curtailed().item()
    for _ in range(100):
        optimizer.zero_grad()
        curtailed().backward()
        optimizer.step()
    assert curtailed().item() < 0.25 * before
