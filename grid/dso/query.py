"""What the operator is asked: loads, proposed trades, a price of energy; and what is wrong with a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Float

from peergrid.grid.errors import InvalidQuery, raise_faults
from peergrid.grid.feeder import Feeder

Coefficient = float | Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False, kw_only=True)
class Penalty:
    """What the DSO pays for touching trades and loads; numbers, or arrays that broadcast over trades or buses.

    A trade proposed at t and accepted at a costs `LMP (a - t) + kappa |a - t| + lambda_corr (a - t)^2` per hour. The
    LMP term makes the DSO indifferent to the energy itself, so that only losses, limits and shedding count. Shedding
    s of a load costs `voll s + c_ls s^2`.
    """

    kappa_per_kwh: Coefficient = 0.05
    lambda_corr_per_kw2h: Coefficient = 0.005
    voll_per_kwh: Coefficient = 3.0
    c_ls_per_kw2h: Coefficient = 0.0
    energy_at_lmp: bool = True

    @classmethod
    def quadratic_only(cls, lambda_corr_per_kw2h: Coefficient, c_ls_per_kw2h: Coefficient) -> Penalty:
        """The penalty of the P2P paper: pure quadratics. It curtails imports and sheds load where nothing binds."""
        return cls(
            kappa_per_kwh=0.0,
            lambda_corr_per_kw2h=lambda_corr_per_kw2h,
            voll_per_kwh=0.0,
            c_ls_per_kw2h=c_ls_per_kw2h,
            energy_at_lmp=False,
        )


def _none() -> Float[np.ndarray, " gen"]:
    return np.zeros(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class Generators:
    """Generators that the DSO dispatches, at a cost of `a p^2 + b p` per hour."""

    bus: tuple[int, ...] = ()
    p_min_kw: Float[np.ndarray, " gen"] = field(default_factory=_none)
    p_max_kw: Float[np.ndarray, " gen"] = field(default_factory=_none)
    q_min_kvar: Float[np.ndarray, " gen"] = field(default_factory=_none)
    q_max_kvar: Float[np.ndarray, " gen"] = field(default_factory=_none)
    a_per_kw2h: Float[np.ndarray, " gen"] = field(default_factory=_none)
    b_per_kwh: Float[np.ndarray, " gen"] = field(default_factory=_none)

    def cost_per_hour(self, p_kw: Float[np.ndarray, "*batch gen"]) -> Float[np.ndarray, "*batch gen"]:
        """What each generator's output costs, in currency per hour."""
        return self.a_per_kw2h * p_kw**2 + self.b_per_kwh * p_kw


@dataclass(frozen=True, eq=False, kw_only=True)
class DsoQuery:
    """What the DSO is asked: the loads of an interval, the proposed trades, and the price of energy upstream.

    Limits are the feeder's own, and the penalty the DSO's own, unless they are given here. A market that lowers a
    proposal to what was accepted and asks again gives in `first_proposed_kw` what it proposed at first: curtailment is
    counted from there, so that what was accepted before is accepted again. `root_price_per_kwh` is the transactive
    signal at the substation, for solvers that exchange signals; the nodal price there if None.
    """

    load_kw: Float[np.ndarray, "*batch bus"]
    load_kvar: Float[np.ndarray, "*batch bus"]
    proposed_kw: Float[np.ndarray, "*batch trade"]
    lmp_per_kwh: Float[np.ndarray, "*batch"] | float
    first_proposed_kw: Float[np.ndarray, "*batch trade"] | None = None
    penalty: Penalty | None = None
    v_min_pu: Float[np.ndarray, "..."] | None = None
    v_max_pu: Float[np.ndarray, "..."] | None = None
    i_max_a: Float[np.ndarray, "..."] | None = None
    root_price_per_kwh: Float[np.ndarray, "..."] | None = None


def check_query(query: DsoQuery, penalty: Penalty, feeder: Feeder, n_trade: int) -> None:
    """Raise InvalidQuery naming every array of the wrong shape or with NaN.

    Crossed limits are found by `check_problem`, once those of the feeder have taken the place of limits not given.
    """
    batch = query.load_kw.shape[:-1]
    by_bus, by_trade = (*batch, feeder.n_bus), (*batch, n_trade)
    expected = {"load_kw": by_bus, "load_kvar": by_bus, "proposed_kw": by_trade}
    faults = []
    if query.first_proposed_kw is not None:
        expected["first_proposed_kw"] = by_trade
    if query.root_price_per_kwh is not None:
        expected["root_price_per_kwh"] = batch
    for name, shape in expected.items():
        array = getattr(query, name)
        if array.shape != shape:
            faults.append(f"{name} has shape {array.shape}, not {shape}")
        elif not np.isfinite(array).all():
            faults.append(f"{name} is not finite at {np.argwhere(~np.isfinite(array))[0].tolist()}")
    if not np.isfinite(query.lmp_per_kwh).all():
        faults.append("lmp_per_kwh is not finite")
    broadcast = {
        "lmp_per_kwh": (query.lmp_per_kwh, batch),
        "v_min_pu": (query.v_min_pu, by_bus),
        "v_max_pu": (query.v_max_pu, by_bus),
        "i_max_a": (query.i_max_a, by_bus),
        "kappa_per_kwh": (penalty.kappa_per_kwh, by_trade),
        "lambda_corr_per_kw2h": (penalty.lambda_corr_per_kw2h, by_trade),
        "voll_per_kwh": (penalty.voll_per_kwh, by_bus),
        "c_ls_per_kw2h": (penalty.c_ls_per_kw2h, by_bus),
    }
    faults += [
        f"{name} has shape {np.shape(given)}, which does not broadcast to {shape}"
        for name, (given, shape) in broadcast.items()
        if given is not None and not isinstance(given, float) and not _broadcasts(np.shape(given), shape)
    ]
    if query.i_max_a is not None and not np.isfinite(feeder.i_max_a[1:]).all():
        faults.append("i_max_a is given, but lines of the feeder have no rating: give the feeder finite ratings first")
    raise_faults(InvalidQuery, f"query to the DSO of {feeder.name!r}", faults)


def check_operator(feeder: Feeder, trade_bus: Sequence[int] | np.ndarray, generators: Generators) -> None:
    """Raise InvalidQuery if trades or generators are at no bus of the feeder, or the generators' arrays don't fit."""
    places = np.asarray(trade_bus)
    if len(places) and not np.issubdtype(places.dtype, np.integer):
        raise InvalidQuery(f"trade_bus is {places.tolist()}, not positions of buses: feeder.index(name) gives one")
    where = f"DSO of {feeder.name!r}"
    unknown = [b for b in (*places.tolist(), *generators.bus) if not 0 <= b < feeder.n_bus]
    raise_faults(InvalidQuery, where, [f"there is no bus at position {b}" for b in unknown])
    shape = (len(generators.bus),)
    wrong = [
        f"{f.name} of the generators has shape {np.shape(getattr(generators, f.name))}, not {shape}"
        for f in fields(generators)
        if f.name != "bus" and np.shape(getattr(generators, f.name)) != shape
    ]
    raise_faults(InvalidQuery, where, wrong)


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return given == shape or np.broadcast_shapes(given, shape) == shape
    except ValueError:
        return False
