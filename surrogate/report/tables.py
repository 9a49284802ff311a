"""How is the report read? Scores, run times and coefficients as tables of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from peergrid.surrogate.report.correlations import TARGETS, Pearson, pearson_cells
from peergrid.surrogate.report.scores import Coverage, Errors, Score

TABLE_WIDTH = 130
Scores = Mapping[str, Mapping[str, Score]]
Columns = Mapping[str, Callable[[Score], str]]


def _cells(name: str, of: Callable[[Score], Errors | None], digits: int, unit: str) -> Columns:
    """The columns R2, RMSE and MAE of one quantity."""

    def show(s: Score, what: str, digits: int) -> str:
        errors = of(s)
        return "" if errors is None else f"{getattr(errors, what):.{digits}f}"

    return {
        f"{name}\nR2": lambda s: show(s, "r2", 4),
        f"{name}\nRMSE {unit}": lambda s: show(s, "rmse", digits),
        f"{name}\nMAE {unit}": lambda s: show(s, "mae", digits),
    }


CORRECTIONS: Columns = {
    **_cells("curtailed", lambda s: s.correction_curtailed, 1, "kW"),
    **_cells("all", lambda s: s.correction, 1, "kW"),
}
ACCEPTANCE: Columns = {
    "accepted MAE\n% of rating": lambda s: f"{100.0 * s.accepted_mae_of_rating:.3f}",
    "% of no\ncurtailment": lambda s: f"{100.0 * s.accepted_mae_of_no_curtailment:.1f}",
    "precision": lambda s: f"{s.precision:.3f}",
    "recall": lambda s: f"{s.recall:.3f}",
    "F1": lambda s: f"{s.f1:.3f}",
}
PRICES: Columns = {
    **_cells("price", lambda s: s.price, 4, "/kWh"),
    **_cells("shed", lambda s: s.shed, 2, "kW"),
}


def _cover(show: Callable[[Coverage], str]) -> Callable[[Score], str]:
    return lambda s: "" if s.coverage is None else show(s.coverage)


INTERVALS: Columns = {
    "prices\ncovered\n%": _cover(lambda c: f"{100.0 * c.price:.1f}"),
    "prices of\ncurtailed\n%": _cover(lambda c: f"{100.0 * c.price_curtailed:.1f}"),
    "acceptances\ncovered\n%": _cover(lambda c: f"{100.0 * c.accepted:.1f}"),
    "acceptances\nof curtailed\n%": _cover(lambda c: f"{100.0 * c.accepted_curtailed:.1f}"),
    "width\nof prices\n/kWh": _cover(lambda c: f"{c.width_per_kwh:.4f}"),
    "width of\nacceptances\n% of rating": _cover(lambda c: f"{100.0 * c.width_share_of_rating:.3f}"),
    "of those\ncurtailed": _cover(lambda c: f"{100.0 * c.width_share_of_rating_curtailed:.2f}"),
}
ROWS: Columns = {
    "rows": lambda s: f"{s.rows}",
    "left out,\nnot optimal": lambda s: f"{s.rows_left_out}",
    "proposals\n% curtailed": lambda s: f"{100.0 * s.curtailed:.1f}",
    "buses\n% fully shed": lambda s: f"{100.0 * s.fully_shed:.2f}",
}


def table(title: str, scores: Scores, columns: Columns) -> Table:
    """Scores as a table, a block of methods for each set."""
    grid = _grid(title, ("set", "method"), columns)
    for name, methods in scores.items():
        for i, (method, found) in enumerate(methods.items()):
            cells = [show(found) for show in columns.values()]
            grid.add_row("" if i else name, method, *cells, end_section=i + 1 == len(methods))
    return grid


def _grid(title: str, names: Sequence[str], numbers: Sequence[str] | Columns) -> Table:
    grid = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    for name in names:
        grid.add_column(name, no_wrap=True)
    for name in numbers:
        grid.add_column(name, justify="right", no_wrap=True)
    return grid


def tables(scores: Scores, local: Mapping[str, Score], seconds: Mapping[str, float], pearson: Pearson) -> list[Table]:
    """All tables of the report."""
    both = {**scores, "local view": local}
    sizes = _grid("The sets", ["set"], ROWS)
    for name, methods in both.items():
        sizes.add_row(name, *[show(next(iter(methods.values()))) for show in ROWS.values()])
    with_intervals = {name: {k: s for k, s in methods.items() if s.coverage} for name, methods in both.items()}
    times = _grid("Run time on one thread, medians", ["who"], ["microseconds per query"])
    for who, value in seconds.items():
        times.add_row(who, f"{1e6 * value:,.0f}")
    together = _grid("Pearson's coefficients at each microgrid's bus, training samples", ("bus", "feature"), TARGETS)
    last = None
    for bus, *cells in pearson_cells(pearson):
        if last not in (None, bus):
            together.add_section()
        together.add_row("" if bus == last else bus, *cells)
        last = bus
    return [
        sizes,
        table("Corrections of proposals", both, CORRECTIONS),
        table("What is accepted, and whether a proposal is curtailed", both, ACCEPTANCE),
        table("Nodal prices at the microgrids, shedding at all buses", both, PRICES),
        table("Intervals: how many hold the truth, and their mean width", with_intervals, INTERVALS),
        times,
        together,
    ]


def as_text(grids: Sequence[Table]) -> str:
    """Tables as the lines that a file or a console shows."""
    console = Console(width=TABLE_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as captured:
        for grid in grids:
            console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"
