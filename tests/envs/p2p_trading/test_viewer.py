from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from peergrid.envs.p2p_trading.scenario import build_dso, load_scenario, scenario_names
from peergrid.envs.p2p_trading.simulation import Simulation
from peergrid.envs.p2p_trading.types import Outcome
from peergrid.envs.p2p_trading.viewer import draw_ansi, draw_figure, draw_rgb
from peergrid.grid.dso import DsoStatus, UncheckedDso


def evening_of_large_imports(**kwargs) -> tuple[Simulation, Outcome]:
    """Communities 1 and 3 buy more than the network carries at seven in the evening; 0 and 2 sell."""
    simulation = Simulation("ieee33_communities", **kwargs)
    simulation.reset(seed=1)
    actions = np.zeros((simulation.num_envs, 4, 4))
    actions[..., 1] = [0.5, -0.8, 0.9, -0.9]
    actions[..., 2] = [-0.5, 0.5, -0.5, 0.5]
    actions[..., 3] = [0.3, -0.9, 0.1, -0.9]
    for _ in range(20):
        _, outcome = simulation.step(actions)
    return simulation, outcome


def test_the_table_marks_the_curtailed_and_nobody_else():
    simulation, outcome = evening_of_large_imports()
    text = draw_ansi(simulation.params, *simulation.running(), outcome)
    assert outcome.is_curtailed[0].tolist() == [False, True, False, True]
    rows = {line.split()[0]: line for line in text.splitlines() if line.split() and line.split()[0] in "0123"}
    assert {i: "*" in line for i, line in rows.items()} == {"0": False, "1": True, "2": False, "3": True}
    assert "19:00 to 20:00" in text and DsoStatus.OPTIMAL.sentence in text
    assert f"LMP {simulation.days.lmp_per_kwh[0, 19]:.3f}" in text
    assert max(len(line) for line in text.splitlines()) <= 120 and "\x1b" not in text
    assert "…" not in text


def test_before_the_first_interval_it_says_what_is_to_come():
    simulation = Simulation("ieee33")
    simulation.reset(seed=3)
    text = draw_ansi(simulation.params, *simulation.running(), None)
    assert "00:00 to 01:00" in text and "To come: LMP" in text
    assert draw_rgb(simulation.params, *simulation.running(), None).std() > 0


def test_rows_of_a_batch_are_drawn_apart():
    simulation, outcome = evening_of_large_imports(num_envs=2)
    state, days = simulation.running()
    texts = [draw_ansi(simulation.params, state, days, outcome, row=row) for row in (0, 1)]
    assert texts[0] != texts[1]
    alone, outcome_alone = evening_of_large_imports()
    assert texts[0] == draw_ansi(alone.params, *alone.running(), outcome_alone)


def test_the_table_counts_what_is_beyond_limits_where_nobody_checks():
    unchecked = UncheckedDso(build_dso(load_scenario("ieee33_communities")))
    simulation, outcome = evening_of_large_imports(dso=unchecked)
    feeder, voltage = simulation.params.feeder, outcome.response.voltage_pu[0]
    beyond = int(((voltage < feeder.v_min_pu - 1e-5) | (voltage > feeder.v_max_pu + 1e-5)).sum())
    assert beyond > 0
    assert f"{beyond} buses beyond limits" in draw_ansi(simulation.params, *simulation.running(), outcome)


def test_the_same_interval_gives_the_same_pixels_and_leaves_settings_alone():
    simulation, outcome = evening_of_large_imports()
    before = dict(matplotlib.rcParams)
    first, second = (draw_rgb(simulation.params, *simulation.running(), outcome) for _ in range(2))
    assert first.shape == (800, 1200, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert dict(matplotlib.rcParams) == before


def test_a_picture_has_the_size_asked_for():
    simulation, outcome = evening_of_large_imports()
    picture = draw_rgb(simulation.params, *simulation.running(), outcome, size=(901, 603))
    assert picture.shape == (603, 901, 3)


def prices_on_map(simulation: Simulation, outcome: Outcome) -> list[str]:
    """The nodal prices that stand beside microgrids on the map."""
    texts = draw_figure(simulation.params, *simulation.running(), outcome).axes[0].texts
    return [text.get_text() for text in texts if text.get_weight() == "bold" and "." in text.get_text()]


def test_every_microgrid_has_its_price_on_the_map():
    simulation, outcome = evening_of_large_imports()
    own = outcome.response.price_per_kwh[0, simulation.params.agent_bus]
    assert sorted(prices_on_map(simulation, outcome)) == sorted(f"{price:.3f}" for price in own)


@pytest.mark.slow
def test_where_room_is_scarce_no_two_texts_cover_each_other():
    simulation = Simulation("ieee123")
    simulation.reset(seed=2)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (1, simulation.n_agent, 4))
    _, outcome = simulation.step(actions)
    assert len(prices_on_map(simulation, outcome)) == simulation.n_agent
    figure = draw_figure(simulation.params, *simulation.running(), outcome)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()).padded(-1.0) for text in figure.axes[0].texts]
    covering = [(a, b) for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)]
    assert covering == []


def test_a_figure_is_saved_as_a_vector_graphic_too(tmp_path):
    simulation, outcome = evening_of_large_imports()
    draw_figure(simulation.params, *simulation.running(), outcome).savefig(tmp_path / "interval.pdf")
    assert (tmp_path / "interval.pdf").read_bytes().startswith(b"%PDF")


def test_curtailment_shows_in_the_picture():
    simulation, outcome = evening_of_large_imports()
    hatched = np.array([0xC2, 0x18, 0x5B])
    picture = draw_rgb(simulation.params, *simulation.running(), outcome)
    nothing_yet = draw_rgb(simulation.params, *simulation.running(), None)

    def strokes(pixels: np.ndarray) -> int:
        return int((np.abs(pixels.astype(int) - hatched).sum(axis=-1) < 30).sum())

    assert strokes(picture) > 2 * strokes(nothing_yet)  # the legend alone has some


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in ("caracas141", "ieee123") else n for n in scenario_names()],
)
def test_every_shipped_scenario_can_be_drawn(name):
    simulation = Simulation(name)
    simulation.reset(seed=2)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (1, simulation.n_agent, simulation.params.n_actions))
    _, outcome = simulation.step(actions)
    text = draw_ansi(simulation.params, *simulation.running(), outcome)
    assert "…" not in text and len(text.splitlines()) >= simulation.n_agent + 6
    assert draw_rgb(simulation.params, *simulation.running(), outcome).std() > 0
