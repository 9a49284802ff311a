"""A query to the operator as an optimal power flow."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from peergrid.grid.dso.layout import DeviceLayout
from peergrid.grid.dso.query import Coefficient, DsoQuery, Generators, Penalty
from peergrid.grid.feeder import Feeder
from peergrid.grid.opf.problem import OF_INJECTIONS, Injections, OpfProblem, UpperVoltage


def constant_injections(layout: DeviceLayout, generators: Generators, substation_limit_kva: float) -> Injections:
    """What no query changes of the injections: the bounds and costs of substation and generators; zero elsewhere."""
    constant = Injections(bus=layout.bus, table=np.zeros((len(OF_INJECTIONS), layout.n_device)))
    for low, high in ((constant.p_min_kw, constant.p_max_kw), (constant.q_min_kvar, constant.q_max_kvar)):
        low[layout.substation], high[layout.substation] = -substation_limit_kva, substation_limit_kva
    own = layout.generators
    constant.p_min_kw[own], constant.p_max_kw[own] = generators.p_min_kw, generators.p_max_kw
    constant.q_min_kvar[own], constant.q_max_kvar[own] = generators.q_min_kvar, generators.q_max_kvar
    constant.linear_per_kwh[own], constant.quadratic_per_kw2h[own] = generators.b_per_kwh, generators.a_per_kw2h
    return constant


def formulate(
    query: DsoQuery,
    penalty: Penalty,
    feeder: Feeder,
    layout: DeviceLayout,
    constant: Injections,
    upper_voltage: UpperVoltage,
) -> OpfProblem:
    """The optimal power flow that answers a query, which has been checked.

    Args:
        constant: What `constant_injections` says of the operator.
    """
    by_bus = query.load_kw.shape

    def limit(
        own: Float[np.ndarray, " bus"], given: Float[np.ndarray, "..."] | None
    ) -> Float[np.ndarray, "*batch bus"]:
        values = own if given is None else np.asarray(given, dtype=float)
        return values if values.shape == by_bus else np.broadcast_to(values, by_bus)

    return OpfProblem(
        feeder=feeder,
        upper_voltage=upper_voltage,
        injections=_injections(query, penalty, layout, constant),
        load_kw=query.load_kw,
        load_kvar=query.load_kvar,
        v_source_pu=np.full(by_bus[:-1], feeder.v_source_pu),
        v_min_pu=limit(feeder.v_min_pu, query.v_min_pu),
        v_max_pu=limit(feeder.v_max_pu, query.v_max_pu),
        i_max_a=limit(feeder.i_max_a, query.i_max_a),
        root_price_per_kwh=query.root_price_per_kwh,
    )


def _injections(query: DsoQuery, penalty: Penalty, layout: DeviceLayout, constant: Injections) -> Injections:
    table = np.empty((*query.load_kw.shape[:-1], *constant.table.shape))
    table[:] = constant.table
    asked = Injections(bus=layout.bus, table=table)
    proposed = wanted = query.proposed_kw
    if (first := query.first_proposed_kw) is not None:
        wanted = np.where((first * proposed > 0) & (np.abs(first) > np.abs(proposed)), first, proposed)
    lmp = np.asarray(query.lmp_per_kwh, dtype=float)[..., None]
    asked.linear_per_kwh[..., layout.substation, None] = lmp

    # What is accepted of a trade lies between nothing and what is proposed.
    trades = layout.trades
    np.minimum(proposed, 0.0, out=asked.p_min_kw[..., trades])
    np.maximum(proposed, 0.0, out=asked.p_max_kw[..., trades])
    asked.linear_per_kwh[..., trades] = lmp * penalty.energy_at_lmp - penalty.kappa_per_kwh * np.sign(wanted)
    asked.quadratic_per_kw2h[..., trades] = penalty.lambda_corr_per_kw2h
    asked.reference_kw[..., trades] = wanted

    # Reactive load goes with the active load that is shed, at the same power factor.
    sheddable = layout.sheddable
    most = np.maximum(query.load_kw[..., 1:], 0.0, out=asked.p_max_kw[..., sheddable])
    asked.linear_per_kwh[..., sheddable] = _but_root(penalty.voll_per_kwh)
    asked.quadratic_per_kw2h[..., sheddable] = _but_root(penalty.c_ls_per_kw2h)
    np.divide(query.load_kvar[..., 1:], most, out=asked.tan_phi[..., sheddable], where=most > 0)
    return asked


def _but_root(coefficient: Coefficient) -> Coefficient:
    """A coefficient of shedding, at the buses where loads can be shed."""
    has_one_for_each = isinstance(coefficient, np.ndarray) and coefficient.ndim and coefficient.shape[-1] > 1
    return np.asarray(coefficient)[..., 1:] if has_one_for_each else coefficient
