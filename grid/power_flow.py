"""Exact AC power flow of a radial feeder, by backward and forward sweeps over a batch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Complex, Float, Int

from peergrid.grid.feeder import Feeder


class PowerFlowStatus(IntEnum):
    """How a sweep ended."""

    CONVERGED = 0
    DIVERGED = 1

    @property
    def sentence(self) -> str:
        return {
            PowerFlowStatus.CONVERGED: "voltages satisfy Kirchhoff's laws to the tolerance",
            PowerFlowStatus.DIVERGED: "no voltage carries these injections: they exceed what the feeder can transport",
        }[self]


@dataclass(frozen=True, eq=False, kw_only=True)
class PowerFlow:
    """Voltages, and the flows at the sending (substation) end of the line that feeds each bus.

    Where `status` is DIVERGED the values are those of the last finite iterate: of use for debugging only.
    """

    voltage_pu: Float[np.ndarray, "*batch bus"]
    angle_rad: Float[np.ndarray, "*batch bus"]
    flow_kw: Float[np.ndarray, "*batch bus"]
    flow_kvar: Float[np.ndarray, "*batch bus"]
    current_a: Float[np.ndarray, "*batch bus"]
    losses_kw: Float[np.ndarray, "*batch"]
    losses_kvar: Float[np.ndarray, "*batch"]
    substation_kw: Float[np.ndarray, "*batch"]
    substation_kvar: Float[np.ndarray, "*batch"]
    status: Int[np.ndarray, "*batch"]
    iterations: Int[np.ndarray, "*batch"]


def solve_power_flow(
    feeder: Feeder,
    p_kw: Float[np.ndarray, "*batch bus"],
    q_kvar: Float[np.ndarray, "*batch bus"],
    *,
    v_source_pu: float | None = None,
    tolerance_pu: float = 1e-12,
    max_iterations: int = 500,
) -> PowerFlow:
    """Voltages and flows for constant-power injections; the substation makes up the balance.

    Args:
        p_kw: Active power injected at each bus, negative where load prevails.
        q_kvar: Reactive power injected, the feeder's own capacitors not included: they are added here.
        v_source_pu: Voltage at the substation; the feeder's own if None.

    Source: Shirmohammadi et al., IEEE Trans. Power Systems 3(2), 1988. Each row of the batch stops by itself, so its
    answer does not depend on the others.
    """
    v_source = feeder.v_source_pu if v_source_pu is None else v_source_pu
    injected = (p_kw + 1j * (q_kvar + feeder.capacitor_kvar)) / feeder.base_kva
    impedance = feeder.r_pu + 1j * feeder.x_pu
    batch = injected.shape[:-1]
    injected = injected.reshape(-1, feeder.n_bus)
    injected_but_root = injected.copy()
    injected_but_root[:, 0] = 0.0

    v = np.full(injected.shape, complex(v_source))
    current = np.zeros_like(v)
    iterations = np.zeros(len(v), dtype=int)
    status = np.full(len(v), int(PowerFlowStatus.DIVERGED))
    running = np.arange(len(v))
    for iteration in range(1, max_iterations + 1):
        with np.errstate(all="ignore"):
            drawn = feeder.downstream_sum(-np.conj(injected_but_root[running] / v[running]))
            swept = v_source - feeder.path_sum(impedance * drawn)
            change = np.abs(swept - v[running]).max(axis=-1)
            sane = np.isfinite(change) & (np.abs(swept).min(axis=-1) > 1e-3 * v_source)
        kept = running[sane]
        v[kept], current[kept], iterations[kept] = swept[sane], drawn[sane], iteration
        done = sane & (change <= tolerance_pu)
        status[running[done]] = PowerFlowStatus.CONVERGED
        running = running[sane & ~done]
        if running.size == 0:
            break
    return _postprocess(feeder, v, current, injected, status, iterations, batch)


def _postprocess(
    feeder: Feeder,
    v: Complex[np.ndarray, "row bus"],
    current: Complex[np.ndarray, "row bus"],
    injected: Complex[np.ndarray, "row bus"],
    status: Int[np.ndarray, " row"],
    iterations: Int[np.ndarray, " row"],
    batch: tuple[int, ...],
) -> PowerFlow:
    is_line = np.arange(feeder.n_bus) > 0
    flow = np.where(is_line, np.take(v, feeder.parent, axis=-1) * np.conj(current), 0.0) * feeder.base_kva
    losses = ((feeder.r_pu + 1j * feeder.x_pu) * np.abs(current) ** 2 * is_line).sum(axis=-1) * feeder.base_kva
    drawn = v[:, 0] * np.conj(current[:, 0]) - injected[:, 0]
    substation = drawn * feeder.base_kva
    return PowerFlow(
        voltage_pu=np.abs(v).reshape(*batch, feeder.n_bus),
        angle_rad=np.angle(v).reshape(*batch, feeder.n_bus),
        flow_kw=flow.real.reshape(*batch, feeder.n_bus),
        flow_kvar=flow.imag.reshape(*batch, feeder.n_bus),
        current_a=(np.abs(current) * feeder.base_a * is_line).reshape(*batch, feeder.n_bus),
        losses_kw=losses.real.reshape(batch),
        losses_kvar=losses.imag.reshape(batch),
        substation_kw=substation.real.reshape(batch),
        substation_kvar=substation.imag.reshape(batch),
        status=status.reshape(batch),
        iterations=iterations.reshape(batch),
    )
