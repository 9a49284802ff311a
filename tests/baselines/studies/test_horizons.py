"""Scores over how far a prediction looks: what is played, what is drawn, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from peergrid.baselines.entry import console_for_tables
from peergrid.baselines.scoring.references import References
from peergrid.baselines.studies.horizons import HorizonSettings, Point, draw, learned, measure, measured, table
from peergrid.baselines.studies.jobs import DONE, RESULT, RUN
from peergrid.envs.common.configuration import read_file
from peergrid.envs.p2p_trading.scenario import load_scenario
from peergrid.grid.errors import PeergridError
from peergrid.grid.files import write_json

SETTINGS = HorizonSettings(
    scenarios=["ieee33", "ieee69"], policies=["foresighted"], predictors=["transformer", "oracle"], horizons=[0, 1, 4]
)
KNOWN = References(first=0, no_trade=np.array([-7367.0]), optimum=np.array([-7290.0]))


def test_without_a_prediction_a_policy_is_played_once_and_the_transformer_where_there_is_one():
    played = list(measured(SETTINGS))
    assert [p[3] for p in played if p[0] == "ieee33"] == [0, 1, 4, 1, 4]
    assert {p[2] for p in played if p[0] == "ieee69"} == {"oracle"}


def test_who_looks_farther_scores_more():
    scenario = load_scenario("ieee33")
    found = [measure(scenario, "foresighted", "oracle", horizon, KNOWN) for horizon in (0, 1, 24)]
    assert found[0].score + 10 < found[1].score < found[2].score - 10
    assert [p.predictor for p in found] == ["none", "oracle", "oracle"]


def test_a_case_is_played_by_its_own_rules():
    # Unchecked trades leave the limits, so their welfare is another than under the operator's eyes.
    scenario = load_scenario("ieee33_communities")
    checked, unchecked = (measure(scenario, name, "none", 0, KNOWN).score for name in ("case_3_blind", "case_1"))
    assert abs(checked - unchecked) > 1.0


class OneMarketOnly:
    """A policy that knows dictionaries alone."""

    def begin(self, env):
        pass

    def act(self, observations):
        return {agent: np.zeros(4, dtype=np.float32) for agent in observations}


def test_a_policy_that_cannot_play_side_by_side_is_told():
    with pytest.raises(PeergridError, match="cannot play many days"):
        measure(load_scenario("ieee33"), f"{__name__}:OneMarketOnly", "none", 0, KNOWN)


def test_learned_policies_are_means_over_seeds(tmp_path):
    for seed, score in enumerate((50.0, 54.0)):
        folder = tmp_path / f"job{seed}"
        settings = {
            "scenario": read_file("scenario", "ieee33"),
            "predictor": "oracle",
            "predicted_intervals": 1,
            "algo": {"name": "ppo"},
            "player": "shared",
        }
        write_json(folder / RUN, {"settings": settings})
        write_json(folder / RESULT, {"score": score})
        (folder / DONE).write_text(json.dumps({"seconds": 1.0}))
    (point,) = learned(tmp_path)
    assert (point.policy, point.horizon, point.score) == ("ppo, shared", 1, 52.0)
    assert point.low == pytest.approx(52.0 - 1.96 * 2.0) and point.high == pytest.approx(52.0 + 1.96 * 2.0)


def test_the_table_and_the_figure_hold_every_point(tmp_path):
    def point(predictor, horizon, score):
        known = {"scenario": "ieee33", "policy": "foresighted", "low": score - 1, "high": score + 1}
        return Point(predictor=predictor, horizon=horizon, score=score, **known)

    points = [point("none", 0, 39.4), point("oracle", 1, 66.5), point("oracle", 24, 96.0)]
    console = console_for_tables()
    with console.capture() as captured:
        console.print(table(points, [0, 1, 24]))
    assert all(told in captured.get() for told in ("39.4", "66.5", "96.0", "foresighted"))
    draw(points, tmp_path / "horizons.png")
    assert (tmp_path / "horizons.png").stat().st_size > 10_000
