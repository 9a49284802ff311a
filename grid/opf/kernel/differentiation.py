"""How the optimum moves with its problem, in reverse: read `adjoint` first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peergrid.grid.compiled import compiled, in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.constraints import registry as constraints
from peergrid.grid.opf.kernel.elimination import backward, forward
from peergrid.grid.opf.kernel.lanes import get, n_lanes, put
from peergrid.grid.opf.kernel.start import load
from peergrid.grid.opf.kernel.units import TYPICAL_PRICE_PER_KWH


@compiled(folder=Path(__file__).parent)
def adjoint(w, tree, given, point, rows, lossless, settings, loss, gradient):
    """Take a loss's gradient with respect to the answers of `rows` back to the numbers of their problems.

    The answer moves as its problem does by the linear system of the iteration, once the cones have their true curvature
    in place of Nesterov and Todd's. The system is symmetric, so one solve with the loss's gradient on the right-hand
    side says what moving any number is worth. Where it is singular the gradient stays zero.
    """
    lanes = n_lanes(w.bus)
    for start in range(0, len(rows), lanes):
        n_taken = min(lanes, len(rows) - start)
        for lane in range(lanes):
            row = rows[start + min(lane, n_taken - 1)]
            load(w, tree, given, row, lane, lossless)
            reload(w, tree, point, row, lane, lossless)
        backward(w, tree, settings, lossless, None)
        for lane in range(lanes):
            put_seed(w, tree, given, loss, rows[start + min(lane, n_taken - 1)], lane, lossless)
        backward(w, tree, settings, lossless, 1)
        forward(w, tree, lossless, 1)
        for lane in range(n_taken):
            row = rows[start + lane]
            total = take_gradient(w, tree, given, loss, gradient, row, lane, lossless)
            gradient.source[row] = 2.0 * given.source[row] * worth_of_source(w, lane, lossless)
            gradient.source[row] += loss.bus[at.OF_VOLTAGE, row, 0]
            if not np.isfinite(total + gradient.source[row]):
                gradient.bus[:, row] = 0.0
                gradient.device[:, row] = 0.0
                gradient.source[row] = 0.0


@in_place
def reload(w, tree, point, row, lane, lossless):
    """Put back the point of a row, with the multipliers of cones along their gradient (-2 P, -2 Q, v, l)."""
    b = w.bus
    n = tree.parent.shape[0]
    for j in range(n):
        for f in range(len(at.KEPT)):
            put(b, j, at.KEPT[f], lane, point.bus[row, f, j])
        if lossless is not None:
            for f in range(len(at.KEPT_HAT)):
                put(b, j, at.KEPT_HAT[f], lane, point.bus[row, len(at.KEPT) + f, j])
    for i in range(tree.origin.shape[0]):
        for f in range(len(at.KEPT_OF_DEVICE)):
            put(w.device, i, at.KEPT_OF_DEVICE[f], lane, point.device[row, f, i])
    for j in range(n):
        constraints.align(b, tree, j, lane, lossless)


@in_place
def put_seed(w, tree, given, loss, row, lane, lossless):
    """Put the loss's gradient where the corrector looks for second-order terms and residuals."""
    b = w.bus
    for j in range(tree.parent.shape[0]):
        of_price = TYPICAL_PRICE_PER_KWH * loss.bus[at.OF_PRICE, row, j]
        of_reactive_price = TYPICAL_PRICE_PER_KWH * loss.bus[at.OF_REACTIVE_PRICE, row, j]
        constraints.seed_bus(w, tree, given, loss, row, j, lane)
        constraints.seed_line(b, tree, loss, row, j, lane, lossless)
        for y in range(0, at.system(lossless).y, 2):
            put(b, j, at.F_Y[y], lane, of_price)
            put(b, j, at.F_Y[y + 1], lane, of_reactive_price)
        put(b, j, at.FV, lane, 0.0)
        if lossless is not None:
            put(b, j, at.GV, lane, 0.0)


@in_place
def take_gradient(w, tree, given, loss, gradient, row, lane, lossless):
    """Gradients of loads, injections and limits; their sum, for the sake of NaN."""
    b, of = w.bus, gradient.bus
    total = 0.0
    for j in range(tree.parent.shape[0]):
        price, reactive_price = constraints.worth_of_bus(b, j, lane, lossless)
        of[at.LOAD_KW, row, j], of[at.LOAD_KVAR, row, j] = -price / tree.base_kva, -reactive_price / tree.base_kva
        total += price + reactive_price
        total += constraints.take_bus(w, tree, given, loss, gradient, row, j, lane, price, reactive_price, lossless)
        if j > 0:
            total += constraints.take_line(b, tree, given, gradient, row, j, lane, lossless)
    return total


@in_place
def worth_of_source(w, lane, lossless):
    """What is left of the substation's voltages in the block that its lines hand to it."""
    b, k, s = w.bus, w.block, at.system(lossless)
    worth = 0.0
    for v in range(s.v):
        worth += get(k, 0, s.rhs + v, lane)
        for c in range(2):
            worth -= get(k, 0, v * s.kept + s.v + c, lane) * get(b, 0, at.NP + c, lane)
    return worth
