"""The report's figures: what their lines and bars hold, and whether they can be read where they are shown."""

import numpy as np
import pytest
from matplotlib.text import Text

from peergrid.envs.p2p_trading.scenario import build_dso, build_microgrids, load_scenario
from peergrid.surrogate.model import PARTS
from peergrid.surrogate.report import figures
from peergrid.surrogate.sampling import Sampling, Shard, draw
from peergrid.surrogate.training import GRADIENTS_OF_PARTS

PAGE_PX, LEAST_PT = 740, 9.0
OLD = ("train_loss", "validation_loss", "gradient_norm", "learning_rate")


@pytest.fixture
def history():
    rng = np.random.default_rng(0)
    names = (*OLD, *GRADIENTS_OF_PARTS.values())
    return [{"step": float(step)} | dict(zip(names, rng.uniform(0.1, 3.0, 7), strict=True)) for step in (10, 20, 30)]


@pytest.fixture(scope="module")
def data():
    scenario = load_scenario("ieee33")
    samples = draw(Shard(scenario, "train", Sampling(days=2), seed=0, number=0, days=2))
    dso = build_dso(scenario)
    return samples, dso, build_microgrids(scenario).rating_kw


def read_pt(figure):
    """The sizes of all that is written, in points on a page that shows the figure 740 pixels wide."""
    figure.canvas.draw()
    per_pt = PAGE_PX / 96 / figure.get_figwidth()
    return {
        text.get_fontsize() * per_pt
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text() and not text.get_text().isspace()
    }


def test_the_gradient_norms_of_the_parts_are_three_lines(history):
    figure = figures._training(history)
    axis = next(a for a in figure.axes if "parts" in a.get_ylabel())
    lines = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    assert tuple(lines) == PARTS
    for part, name in GRADIENTS_OF_PARTS.items():
        np.testing.assert_array_equal(lines[part], [row[name] for row in history])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(PARTS)
    assert len({(line.get_color(), line.get_marker()) for line in axis.get_lines()}) == 3


def test_curves_of_a_training_before_parts_were_kept_are_drawn_as_far_as_they_go(history):
    old = [{name: row[name] for name in ("step", *OLD)} for row in history]
    figure = figures._training(old)
    figure.canvas.draw()
    drawn = [line.get_ydata() for axis in figure.axes for line in axis.get_lines()]
    assert sum(np.isfinite(values).all() for values in drawn) == 4
    assert sum(np.isnan(values).all() for values in drawn) == 3


def test_the_panel_of_the_sun_holds_the_factors_where_there_is_sun(data):
    samples, dso, rating_kw = data
    factor = np.full(samples.proposed_kw.shape, np.nan)
    factor[:30] = np.linspace(0.4, 1.6, 30)[:, None]
    figure = figures._inputs(samples, factor, dso.feeder, rating_kw)
    axis = next(a for a in figure.axes if a.get_xlabel().startswith("solar uncertainty"))
    bars = [bar for bar in axis.patches if bar.get_height() > 0]
    assert bars[0].get_x() == pytest.approx(0.4)
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(1.6)
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100.0)


def test_inputs_without_any_sun_are_drawn(data):
    samples, dso, rating_kw = data
    figure = figures._inputs(samples, np.full(samples.proposed_kw.shape, np.nan), dso.feeder, rating_kw)
    axis = next(a for a in figure.axes if a.get_xlabel().startswith("solar uncertainty"))
    assert [text.get_text() for text in axis.texts] == ["none"] and not axis.patches


def test_figures_are_read_where_they_are_shown(data, history):
    samples, dso, rating_kw = data
    drawn = {
        "training": figures._training(history),
        "inputs": figures._inputs(samples, np.ones(samples.proposed_kw.shape), dso.feeder, rating_kw),
        "correlations": figures._correlations(samples, dso.trade_bus),
    }
    for name, figure in drawn.items():
        assert min(read_pt(figure)) >= LEAST_PT - 0.01, name
