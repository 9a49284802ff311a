"""What a nodal price says of a trade, and what counts as curtailed."""

import numpy as np
import torch

from peergrid.grid import load_feeder
from peergrid.grid.dso import DsoQuery, DsoStatus, OpfDso, Penalty, accepted_at_price, is_curtailed

PENALTY = Penalty(lambda_corr_per_kw2h=0.002)
RULE = {"kappa_per_kwh": PENALTY.kappa_per_kwh, "lambda_corr_per_kw2h": PENALTY.lambda_corr_per_kw2h}


def test_what_the_operator_accepts_follows_from_its_prices():
    feeder, rng = load_feeder("ieee33"), np.random.default_rng(0)
    dso = OpfDso(feeder, [feeder.index(bus) for bus in (17, 22, 25, 32)], penalty=PENALTY)
    share = rng.uniform(0.3, 0.9, (40, 1))
    proposed_kw = rng.uniform(-1500.0, 1500.0, (40, 4))
    lmp = rng.uniform(0.05, 0.15, 40)
    response = dso(
        DsoQuery(
            load_kw=share * feeder.load_kw, load_kvar=share * feeder.load_kvar, proposed_kw=proposed_kw, lmp_per_kwh=lmp
        )
    )
    solved = response.status == DsoStatus.OPTIMAL
    found = accepted_at_price(proposed_kw, response.price_per_kwh[:, dso.trade_bus], lmp[:, None], **RULE)
    cut = is_curtailed(proposed_kw, response.accepted_kw, np.full(4, 1500.0))[solved]
    assert 0.1 < cut.mean() < 0.9
    np.testing.assert_allclose(found[solved], response.accepted_kw[solved], atol=0.05)


def test_a_trade_is_accepted_whole_within_kappa_of_the_lmp_and_given_up_far_from_it():
    proposed_kw, lmp = np.array([100.0, -100.0, 0.0]), 0.1
    for price, accepted_kw in (
        (0.1, [100.0, -100.0, 0.0]),
        (0.1 - 0.05, [100.0, -100.0, 0.0]),
        (0.1 - 0.05 - 0.1, [75.0, -100.0, 0.0]),  # 0.1 per kWh beyond kappa, at 0.004 for each kW that is cut
        (0.1 + 0.05 + 0.2, [100.0, -50.0, 0.0]),
        (-5.0, [0.0, -100.0, 0.0]),
        (5.0, [100.0, 0.0, 0.0]),
    ):
        found = accepted_at_price(proposed_kw, np.full(3, price), lmp, **RULE)
        np.testing.assert_allclose(found, accepted_kw, atol=1e-9)


def test_tensors_get_the_same_answer_and_have_gradients():
    rng = np.random.default_rng(1)
    proposed_kw, price = rng.uniform(-100.0, 100.0, 50), rng.uniform(-0.3, 0.5, 50)
    priced = torch.tensor(price, requires_grad=True)
    found = accepted_at_price(torch.tensor(proposed_kw), priced, torch.tensor(0.1), **RULE)
    np.testing.assert_allclose(found.detach(), accepted_at_price(proposed_kw, price, 0.1, **RULE), rtol=1e-6)
    found.sum().backward()
    cut = (found.detach().abs() < torch.tensor(proposed_kw).abs()) & (found.detach() != 0)
    assert cut.any() and not cut.all()
    np.testing.assert_allclose(priced.grad, torch.where(cut, 1.0 / 0.004, 0.0))


def test_a_hundredth_of_the_rating_is_not_yet_curtailed():
    proposed_kw = np.array([[50.0, -50.0], [50.0, -50.0]])
    accepted_kw = np.array([[49.1, -49.1], [48.9, -48.9]])
    np.testing.assert_array_equal(
        is_curtailed(proposed_kw, accepted_kw, np.array([100.0, 50.0])), [[False, True], [True, True]]
    )
