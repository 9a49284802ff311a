from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from peergrid.envs.common.network import NetworkSpec
from peergrid.envs.transactive import viewer
from peergrid.envs.transactive.scenario import AgentSpec, LoopSpec, TransactiveScenario, load_scenario
from peergrid.envs.transactive.simulation import Transactive
from peergrid.envs.transactive.types import Closing, Outcome
from peergrid.envs.transactive.viewer import ALARM, NOW, RESOURCE_COLOURS, draw_ansi, draw_rgb
from peergrid.grid.catalogue import load_feeder
from peergrid.grid.dso import DsoStatus

BASE = load_scenario("ieee37")
# Loops whose first iteration ends as they are named, if nobody does anything.
ENDING = {
    Closing.OPEN: LoopSpec(threshold_share=1e-6),
    Closing.WITHIN_THRESHOLD: LoopSpec(threshold_share=1.0),
    Closing.SIGNAL_STANDS: LoopSpec(threshold_share=1e-6, rule="none"),
    Closing.OUT_OF_ITERATIONS: LoopSpec(threshold_share=1e-6, max_iterations=1),
}


def begun(scenario: TransactiveScenario = BASE, **kwargs) -> Transactive:
    simulation = Transactive(scenario, **kwargs)
    simulation.reset(options={"evaluation_day": 0})
    return simulation


def played(scenario: TransactiveScenario = BASE, actions=(0.0, -1.0, 0.0), steps: int = 1, **kwargs) -> Transactive:
    """After some iterations in which every agent does the same; the default is to do nothing."""
    simulation = begun(scenario, **kwargs)
    for _ in range(steps):
        simulation.step(np.tile(actions, (simulation.num_envs, simulation.n_agent, 1)))
    return simulation


def ending(closing: Closing) -> Transactive:
    return played(replace(BASE, loop=ENDING[closing]))


def text_of(simulation: Transactive, outcome: Outcome | None = None, **kwargs) -> str:
    return draw_ansi(simulation.params, *simulation.running(), outcome or simulation.outcome, **kwargs)


def picture_of(simulation: Transactive, outcome: Outcome | None = None, **kwargs) -> np.ndarray:
    return draw_rgb(simulation.params, *simulation.running(), outcome or simulation.outcome, **kwargs)


def in_trouble(simulation: Transactive) -> Outcome:
    """The last outcome, had the DSO failed, shed load, left voltages low, and cut what agent 1 asked for."""
    outcome = simulation.outcome
    accepted = outcome.response.accepted_kw.copy()
    accepted[:, 1] += 50.0
    response = replace(
        outcome.response,
        status=np.full_like(outcome.response.status, DsoStatus.INFEASIBLE),
        shed_kw=outcome.response.shed_kw + 3.0,
        voltage_pu=outcome.response.voltage_pu - 0.1,
        accepted_kw=accepted,
    )
    return replace(outcome, response=response)


def cells(text: str, bus: str) -> list[str]:
    """What the table says of an agent, its bus first."""
    return next(line.split() for line in text.splitlines() if line.split() and line.split()[0] == bus)


def pixels_in(colour: str, picture: np.ndarray) -> int:
    return int((np.abs(picture - 255.0 * np.array(to_rgb(colour))).sum(axis=-1) < 12).sum())


def figure_of(monkeypatch: pytest.MonkeyPatch, simulation: Transactive, **kwargs) -> Figure:
    """The figure behind a picture, drawn."""
    seen: list[Figure] = []
    with monkeypatch.context() as patch:
        patch.setattr(viewer, "pixels", lambda figure: seen.append(figure) or np.zeros((1, 1, 3), dtype=np.uint8))
        picture_of(simulation, **kwargs)
    FigureCanvasAgg(seen[0]).draw()
    return seen[0]


def texts_shown(figure: Figure) -> list[Text]:
    """All texts of a figure but the labels of ticks out of sight."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
        beyond |= {label for tick in ticks for label in (tick.label1, tick.label2)}
    shown = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in beyond]
    return [t for t in shown if t.axes is None or t.axes.axison or t in t.axes.texts]


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_says_what_every_agent_did():
    simulation = played(actions=(0.4, 0.2, -0.5), steps=3)
    outcome, text = simulation.outcome, text_of(simulation)
    parts = [outcome.load_kw, outcome.pv_kw, outcome.set_points.shift_kw, outcome.set_points.generator_kw]
    parts += [outcome.set_points.storage_kw, outcome.stored_kwh, outcome.exchange_kw, outcome.scheduled_exchange_kw]
    for i, bus in enumerate(simulation.params.agent_bus):
        numbers = [float(cell) for cell in cells(text, simulation.params.feeder.bus[bus])[1:]]
        expected = [outcome.signal_per_kwh[0, bus], *(part[0, i] for part in parts)]
        np.testing.assert_allclose(numbers, expected, atol=0.51)
        np.testing.assert_allclose(numbers[0], expected[0], atol=6e-5)
    assert max(len(line) for line in text.splitlines()) <= 120 and "\x1b" not in text and "…" not in text


@pytest.mark.parametrize("actions, sign", [((0.0, -1.0, 0.0), -1), ((-1.0, -1.0, -1.0), 1)])
def test_the_header_says_where_the_loop_is(actions, sign):
    simulation = played(replace(BASE, loop=replace(ENDING[Closing.OPEN], max_iterations=9)), actions, steps=2)
    outcome, text = simulation.outcome, text_of(simulation)
    share = 100 * outcome.gap_kw[0] / outcome.scheduled_kw[0]
    assert np.sign(outcome.gap_kw) == sign
    assert text.startswith(f"{simulation.params.feeder.title}, 00:00 to 01:00, iteration 2 of at most 9\n")
    assert f"LMP {outcome.lmp_per_kwh[0]:.4f} per kWh, root signal {outcome.root_per_kwh[0]:.4f} (" in text
    assert f"P_RT {outcome.import_kw[0]:.0f} kW, P_Sch {outcome.scheduled_kw[0]:.0f} kW, gap " in text
    assert f"gap {outcome.gap_kw[0]:+.0f} kW ({share:+.1f} % of P_Sch)" in text
    assert DsoStatus.OPTIMAL.sentence in text and "all within limits" in text


@pytest.mark.parametrize("closing", Closing)
def test_why_an_hour_closed_is_told_and_money_only_then(closing):
    simulation = ending(closing)
    assert simulation.outcome.closing[0] == closing
    text = text_of(simulation).lower()
    assert [c for c in Closing if c.sentence.lower() in text] == [closing]
    row = cells(text, "701")
    assert ("closed, as" in text, "reward" in text, len(row)) == ((True, True, 12) if closing else (False, False, 10))
    if closing:
        money = [simulation.outcome.bills.total[0, 0], simulation.outcome.reward[0, 0]]
        np.testing.assert_allclose([float(cell) for cell in row[-2:]], money, atol=0.0051)


@pytest.mark.parametrize(
    "action, way",
    [
        (1.0, "{base} +20.0 %, at its upper bound"),
        (-1.0, "{base} -20.0 %, at its lower bound"),
        (-0.5, "{base} -10.0 %, 50 % of the way to its lower bound"),
        (0.0, "the {base}"),
    ],
)
@pytest.mark.parametrize(("signal_base", "name"), [("day_ahead", "day-ahead LMP"), ("real_time", "LMP")])
def test_the_root_signal_is_placed_between_its_bounds(action, way, signal_base, name):
    simulation = begun(replace(BASE, loop=replace(ENDING[Closing.OPEN], bound_share=0.2, signal_base=signal_base)))
    for _ in range(2):  # what the DSO says is answered in the next iteration
        simulation.step(np.zeros((1, simulation.n_agent, 3)), dso_actions=np.array([action]))
    assert simulation.outcome.iteration[0] == 1
    assert f"({way.format(base=name)})" in text_of(simulation)


def test_before_the_first_iteration_it_says_what_is_to_be_answered():
    simulation = begun()
    text, now = text_of(simulation), simulation.now()
    assert "00:00 to 01:00, iteration 1 of" in text and "To be answered" in text
    assert "(the day-ahead LMP)" in text
    assert f"P_Sch {now.scheduled_kw[0]:.0f} kW, load of all buses {now.load_kw[0].sum():.0f} kW" in text
    most = now.limits.shift_most_kw[0, 0]
    assert f"{-most:.1f} to {most:.1f}" in text
    assert len(cells(text, "713")) == 15 and "reward" not in text


def test_the_hour_shown_is_the_outcomes_even_after_the_last():
    simulation = ending(Closing.OUT_OF_ITERATIONS)
    assert simulation.running()[0].interval[0] == 1
    assert "00:00 to 01:00, iteration 1 of" in text_of(simulation)
    over = played(replace(BASE, loop=ENDING[Closing.OUT_OF_ITERATIONS], intervals=2), steps=2)
    assert over.is_over.all()
    assert "01:00 to 02:00, iteration 1 of" in text_of(over)
    assert picture_of(over).std() > 0


def test_only_the_curtailed_are_marked():
    simulation = ending(Closing.OPEN)
    assert "*" not in text_of(simulation).replace("* curtailed", "")
    text = text_of(simulation, in_trouble(simulation))
    assert [bus for bus in ("701", "713", "722", "742") if "*" in "".join(cells(text, bus))] == ["713"]
    assert DsoStatus.INFEASIBLE.sentence in text and "36 buses beyond limits" in text


def test_rows_of_a_batch_are_drawn_apart():
    simulation = played(replace(BASE, loop=ENDING[Closing.OPEN]), num_envs=2)
    first, second = (text_of(simulation, row=row) for row in (0, 1))
    assert first != second
    alone = simulation.row(1)
    assert second == text_of(alone)
    np.testing.assert_array_equal(picture_of(simulation, row=1), picture_of(alone))


# --- the picture ------------------------------------------------------------------------------------------------------


def test_the_same_iteration_gives_the_same_pixels_and_leaves_settings_alone():
    simulation = ending(Closing.OPEN)
    before = dict(matplotlib.rcParams)
    first, second = picture_of(simulation), picture_of(simulation)
    assert first.shape == (800, 1200, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert dict(matplotlib.rcParams) == before


def test_a_picture_has_the_size_asked_for():
    assert picture_of(ending(Closing.OPEN), size=(901, 603)).shape == (603, 901, 3)


@pytest.mark.parametrize(
    "actions, resource", [((0.0, -1.0, 1.0), "storage"), ((0.0, 1.0, 0.0), "generator"), ((1.0, -1.0, 0.0), "shift")]
)
def test_what_a_resource_injects_shows_in_its_colour(actions, resource):
    idle, busy = picture_of(played()), picture_of(played(actions=actions))
    colour = RESOURCE_COLOURS[resource]
    assert pixels_in(colour, busy) > 5 * pixels_in(colour, idle)  # the legend alone has some


def test_the_exchange_of_the_hour_shows_beside_its_schedule():
    simulation = played(replace(BASE, loop=ENDING[Closing.OPEN]))
    outcome = simulation.outcome
    far = replace(outcome, import_kw=outcome.scheduled_kw + 400.0)
    right_on = replace(outcome, import_kw=outcome.scheduled_kw)
    assert pixels_in(NOW, picture_of(simulation, far)) > pixels_in(NOW, picture_of(simulation, right_on)) + 20


def test_what_goes_wrong_stands_out(monkeypatch):
    simulation = ending(Closing.OPEN)
    fine = picture_of(simulation)
    assert pixels_in(ALARM, picture_of(simulation, in_trouble(simulation))) > 5 * pixels_in(ALARM, fine)
    told = [t.get_text() for t in figure_of(monkeypatch, simulation, outcome=in_trouble(simulation)).texts]
    wrong = ("DSO: no dispatch keeps every bus and line within limits", "36 buses beyond limits", "shed 111 kW")
    wrong += ("1 of 9 agents curtailed",)
    assert "   ·   ".join(wrong) in told


@pytest.mark.parametrize("signal_base", ["day_ahead", "real_time"])
def test_prices_of_hours_to_come_are_not_given_away(signal_base):
    loop = replace(ENDING[Closing.OUT_OF_ITERATIONS], signal_base=signal_base)
    simulation = played(replace(BASE, loop=loop), steps=3)
    state, days = simulation.running()
    others = days.lmp_per_kwh.copy()
    others[:, 3:] *= 1.5
    pictures = [
        draw_rgb(simulation.params, state, replace(days, lmp_per_kwh=lmp), simulation.outcome)
        for lmp in (days.lmp_per_kwh, others)
    ]
    np.testing.assert_array_equal(*pictures)


def scenario_on(feeder: str, every: int) -> TransactiveScenario:
    """Agents at every so many buses of a feeder, with limits wide enough for any load."""
    buses = [b for b, load in zip(load_feeder(feeder).bus, load_feeder(feeder).load_kw, strict=True) if load > 0]
    network = NetworkSpec(feeder=feeder, v_min_pu=0.85)
    return replace(BASE, network=network, agents=tuple(AgentSpec(bus=bus) for bus in buses[::every]))


@pytest.mark.parametrize("size", [(1200, 800), (1280, 720)])
@pytest.mark.parametrize(
    "simulation",
    [
        pytest.param(begun, id="before the first"),
        pytest.param(lambda: ending(Closing.OPEN), id="open"),
        pytest.param(lambda: ending(Closing.WITHIN_THRESHOLD), id="closed"),
        pytest.param(lambda: played(replace(BASE, agents=(AgentSpec(bus="713"),))), id="one agent"),
        pytest.param(lambda: played(scenario_on("ieee33", 3)), id="ieee33"),
        pytest.param(lambda: played(scenario_on("ieee123", 6)), id="ieee123"),
    ],
)
def test_every_text_lies_within_the_picture_and_covers_no_other(simulation, size, monkeypatch):
    figure = figure_of(monkeypatch, simulation(), size=size)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts_shown(figure)]
    assert len(boxes) > 50
    outside = [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > size[0] or box.y1 > size[1]]
    covered = [(a, b) for (a, i), (b, k) in combinations(boxes, 2) if i.padded(-1.0).overlaps(k.padded(-1.0))]
    assert (outside, covered) == ([], [])


def test_the_map_names_every_bus_and_gives_every_agents_signal(monkeypatch):
    simulation = ending(Closing.OPEN)
    written = [t.get_text() for t in figure_of(monkeypatch, simulation).axes[0].texts]
    signals = [f"{psi:.4f}" for psi in simulation.outcome.signal_per_kwh[0, simulation.params.agent_bus]]
    assert [s for s in signals if s not in written] == []
    assert set(simulation.params.feeder.bus[1:]) <= set(written)
