"""The report on the transformer: figures by hand, plain methods within bounds, a search that only gets worse."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.surrogate.dataset import load_subset, make_dataset
from peergrid.surrogate.model import DsoTransformer, ModelConfig
from peergrid.surrogate.questions import Answers
from peergrid.surrogate.report import writing
from peergrid.surrogate.report.correlations import pearson_by_bus
from peergrid.surrogate.report.plain import mlp, nearest_sample, no_curtailment, plain_methods
from peergrid.surrogate.report.scores import score
from peergrid.surrogate.report.trials import acceptance_error, adversarial, answers_of
from peergrid.surrogate.samples import Samples, label
from peergrid.surrogate.sampling import Sampling, Shard, draw
from peergrid.surrogate.training import GRADIENTS_OF_PARTS

RATING_KW = np.array([100.0, 100.0])
TRADE_BUS = np.array([1, 2])


@pytest.fixture
def truth():
    """Two solved rows, of which one trade is curtailed and one bus fully shed, and a row that failed."""
    ones = np.ones(3, dtype=np.float32)
    return Samples(
        hour=np.zeros(3, dtype=np.int8),
        load_kw=np.array([[0, 50, 50], [0, 50, 40], [0, 50, 50]], dtype=np.float32),
        load_kvar=np.zeros((3, 3), dtype=np.float32),
        proposed_kw=np.array([[100, -50], [80, 0], [7, 7]], dtype=np.float32),
        lmp_per_kwh=0.1 * ones,
        lambda_corr_per_kw2h=0.005 * ones,
        c_ls_per_kw2h=0 * ones,
        accepted_kw=np.array([[60, -50], [80, 0], [0, 0]], dtype=np.float32),
        shed_kw=np.array([[0, 0, 0], [0, 0, 40], [0, 0, 0]], dtype=np.float32),
        price_per_kwh=np.array([[0.1, 0.2, 0.3], [0.1, 0.4, 5.0], [9.0, 9.0, 9.0]], dtype=np.float32),
        status=np.array([0, 0, 3], dtype=np.int8),
    )


def with_intervals(answers, room_kw, room_per_kwh):
    return replace(
        answers,
        accepted_low_kw=answers.accepted_kw - room_kw,
        accepted_high_kw=answers.accepted_kw + room_kw,
        price_low_per_kwh=answers.price_per_kwh - room_per_kwh,
        price_high_per_kwh=answers.price_per_kwh + room_per_kwh,
    )


def test_a_perfect_prediction_scores_perfectly(truth):
    said = Answers(
        accepted_kw=truth.accepted_kw, price_per_kwh=truth.price_per_kwh[:, TRADE_BUS], shed_kw=truth.shed_kw
    )
    found = score(truth, said, RATING_KW, TRADE_BUS)
    assert (found.rows, found.rows_left_out) == (2, 1)
    assert (found.precision, found.recall, found.f1) == (1.0, 1.0, 1.0)
    assert (found.correction.r2, found.price.r2, found.shed.r2) == (1.0, 1.0, 1.0)
    assert found.accepted_mae_of_rating == found.price.mae == found.shed.rmse == 0.0


def test_scores_match_those_by_hand(truth):
    said = Answers(
        accepted_kw=np.array([[70, -50], [60, 0], [7, 7]], dtype=np.float32),
        price_per_kwh=np.array([[0.2, 0.3], [0.7, 0.0], [0.0, 0.0]], dtype=np.float32),
    )
    found = score(truth, said, RATING_KW, TRADE_BUS)
    # Corrections are 40, 0, 0, 0 and said to be 30, 0, 20, 0; the bus that is fully shed has no say in prices.
    assert found.correction.rmse == pytest.approx(np.sqrt(500 / 4))
    assert found.correction.r2 == pytest.approx(1 - 500 / 1200)
    assert found.correction_curtailed.mae == pytest.approx(10.0)
    assert (found.precision, found.recall) == (0.5, 1.0)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.accepted_mae_of_rating == pytest.approx(0.3 / 4)
    assert found.accepted_mae_of_no_curtailment == pytest.approx(0.75)
    assert (found.curtailed, found.fully_shed) == (0.25, 0.25)
    assert found.price.mae == pytest.approx(0.1, rel=1e-5)
    assert found.price.rmse == pytest.approx(np.sqrt(0.03), rel=1e-5)
    assert found.shed is None and found.coverage is None


def test_intervals_cover_what_lies_in_them(truth):
    # Acceptances are off by 10 where it is curtailed and by 20 elsewhere, a price by 0.3.
    said = Answers(
        accepted_kw=np.array([[70, -50], [60, 0], [7, 7]], dtype=np.float32),
        price_per_kwh=np.array([[0.2, 0.3], [0.7, 0.0], [0.0, 0.0]], dtype=np.float32),
    )
    found = score(truth, with_intervals(said, room_kw=15.0, room_per_kwh=0.1), RATING_KW, TRADE_BUS).coverage
    assert (found.accepted, found.accepted_curtailed) == (0.75, 1.0)
    assert found.price == pytest.approx(2 / 3)
    assert (found.width_share_of_rating, found.width_per_kwh) == (pytest.approx(0.3), pytest.approx(0.2))


@pytest.fixture(scope="module")
def network():
    """An operator with 96 of its answers, and an untrained model of it."""
    scenario = load_scenario("ieee33")
    dso = build_dso(scenario)
    samples = draw(Shard(scenario, "train", Sampling(days=4), seed=0, number=0, days=4))
    torch.manual_seed(0)
    model = DsoTransformer(dso, ModelConfig(width=8, layers=1, heads=2, feed_forward=8))
    return dso, samples, model, build_microgrids(scenario).rating_kw


def test_plain_methods_keep_to_the_proposals(network):
    _, samples, model, rating_kw = network
    asked = draw(Shard(load_scenario("ieee33"), "test", Sampling(days=1, proposal_scale=4.0), 0, 0, 1))
    for name, method in plain_methods(samples, model, rating_kw, mlp_steps=5).items():
        said = method(asked)
        assert said.accepted_kw.shape == said.price_per_kwh.shape == asked.proposed_kw.shape, name
        assert (said.accepted_kw * asked.proposed_kw >= 0).all(), name
        assert (np.abs(said.accepted_kw) <= np.abs(asked.proposed_kw)).all(), name
        assert np.isfinite(said.price_per_kwh).all(), name


def test_the_nearest_sample_to_a_training_sample_is_itself(network):
    dso, samples, model, _ = network
    said = nearest_sample(samples, model)(samples)
    np.testing.assert_allclose(said.accepted_kw, samples.accepted_kw, atol=1e-3)
    np.testing.assert_allclose(said.price_per_kwh, samples.price_per_kwh[:, dso.trade_bus], atol=1e-5)


@pytest.mark.parametrize("has_price_rule", [False, True])
def test_perceptrons_learn_and_learn_the_same_again(network, has_price_rule):
    dso, samples, model, rating_kw = network
    state = torch.get_rng_state()
    first, again = (
        mlp(samples, model, rating_kw, 400, seed=3, has_price_rule=has_price_rule)(samples) for _ in range(2)
    )
    np.testing.assert_array_equal(first.accepted_kw, again.accepted_kw)
    np.testing.assert_array_equal(state, torch.get_rng_state())
    assert score(samples, first, rating_kw, dso.trade_bus).accepted_mae_of_no_curtailment < 0.7


def test_the_adversary_only_makes_things_worse(network):
    dso, samples, model, rating_kw = network

    def search(rounds):
        rng = np.random.default_rng(1)
        lmp = (float(samples.lmp_per_kwh.min()), float(samples.lmp_per_kwh.max()))
        return adversarial(model, dso, samples, rng, rating_kw=rating_kw, lmp_per_kwh=lmp, n_start=16, rounds=rounds)

    start, found = search(0), search(8)
    before, after = (acceptance_error(model, s, rating_kw) for s in (start, found))
    assert (after >= before).all() and after.mean() > 1.2 * before.mean() > 0.0
    assert (np.abs(found.proposed_kw) <= np.maximum(rating_kw, np.abs(start.proposed_kw)) + 1e-3).all()
    scale = found.load_kw.sum(axis=1) / start.load_kw.sum(axis=1)
    assert (scale > 0.8 - 1e-5).all() and (scale < 1.1 + 1e-5).all()
    np.testing.assert_allclose(label(dso, found.hour, found.questions).accepted_kw, found.accepted_kw, atol=1e-2)


def test_the_report_holds_tables_figures_and_plain_numbers(network, tmp_path, monkeypatch):
    dso, _, model, rating_kw = network
    subsets = {"train": Sampling(days=2), "test": Sampling(days=1, held_out_days=True)}
    make_dataset(tmp_path / "data", "ieee33", subsets, workers=1)
    monkeypatch.setattr(writing, "run_times", lambda *_: {"transformer, 1 at once": 1e-3})
    keys = ("step", "train_loss", "validation_loss", "gradient_norm", "learning_rate", *GRADIENTS_OF_PARTS.values())
    history = [dict.fromkeys(keys, 1.0), dict.fromkeys(keys, 2.0)]
    scenario = load_scenario("ieee33")
    found = writing.report(tmp_path, model, dso, rating_kw, tmp_path / "data", scenario, history, mlp_steps=2, days=1)
    output = tmp_path / "report"
    assert json.loads((output / "metrics.json").read_text()) == found
    test = load_subset(tmp_path / "data", "test")
    by_hand = score(test, answers_of(model)(test), rating_kw, dso.trade_bus)
    assert found["sets"]["test"]["transformer"]["accepted_mae_of_rating"] == by_hand.accepted_mae_of_rating
    nothing = score(test, no_curtailment(test), rating_kw, dso.trade_bus)
    assert nothing.accepted_mae_of_no_curtailment == 1.0
    assert set(found["sets"]) == {"test", "adversarial"}
    assert found["local_view"]["exact DSO, local view"]["rows"] == scenario.intervals
    shown = (output / "tables.txt").read_text()
    assert "nearest sample" in shown
    assert found["training"] == history
    pearson = pearson_by_bus(load_subset(tmp_path / "data", "train"), dso.feeder.bus, dso.trade_bus)
    assert list(found["pearson_by_bus"]) == list(pearson) == ["17", "22", "25", "32"]
    price = pearson["17"]["active load"]["nodal price"]
    assert found["pearson_by_bus"]["17"]["active load"]["nodal price"] == price
    assert f"{price:.2f}" in next(line for line in shown.splitlines() if "active load" in line)
    assert len(list(output.glob("*.png"))) == 5
