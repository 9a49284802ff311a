"""The linear system of an iteration, eliminated along the tree: leaves to substation, and back.

Line j eliminates x = (l, P, Q [, Ph, Qh]) and its bus's multipliers y = (LP, LQ [, HP, HQ]); what stays is a block
on the sending bus's voltages and y. The bus's own block is on (v [, vh], y); its voltages are substituted:
dv = FV + dv_A - c'x with c = (-z^2, 2r, 2x) on (l, P, Q), and dvh = GV + dvh_A - 2r dPh - 2x dQh.
Columns stand in the order x, y, v_A [, vh_A], y_A: l touches none of y_A, P only LP_A, Q only these two, and so on,
so that row i of the factors ends where `reach` says. `layout.System` has the sizes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.constraints import registry as constraints
from peergrid.grid.opf.kernel.lanes import _FLAGS, LANES, SCRATCH_COLUMNS, _entry, _lanes, add, ld, scratch, st, take

# What the proximal term on l is of the one on P and Q, times |z|^2.
PROXIMAL_OF_L = 1e-2


@in_place
def reach(i, size, n_y):
    """One past the last column that row i of the matrix touches."""
    return size - n_y + min(i, n_y)


@in_place
def backward(w, tree, settings, lossless, corrector):
    """Leaves to substation: scaling, factors and the predictor's right-hand side, or the corrector's alone."""
    b, k, t = w.bus, w.block, scratch(w.bus)
    n, s = tree.parent.shape[0], at.system(lossless)
    zero = 0.0 * ld(b, n, at.GAP)
    smu = zero if corrector is None else ld(b, n, at.CENTRING)
    for i in range(s.kept):
        st(k, 0, s.rhs + i, 0.0)
        if corrector is None:
            for c in range(s.kept):
                st(k, 0, i * s.kept + c, 0.0)
    if corrector is None:
        # In a pass of its own: its divisions then don't wait for the factors of other lines.
        for j in range(1, n):
            constraints.open_line(b, tree, j, lossless)
    for j in range(n - 1, -1, -1):
        join_bus(w, tree, settings, j, smu, lossless, corrector)
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        # c of the voltage drop with losses, on (l, P, Q), and without, on (Ph, Qh).
        flow, flow_hat = (-(r * r + x * x), 2.0 * r, 2.0 * x), (2.0 * r, 2.0 * x)
        if corrector is None:
            constraints.curve_bus(b, k, j, lossless)
        e_v, e_h = right_of_voltages(b, k, j, smu, lossless, corrector)
        if corrector is None:
            fill(w, t, tree, settings, j, flow, flow_hat, lossless)
        fill_right(w, t, tree, j, flow, flow_hat, e_v, e_h, smu, lossless, corrector)
        if corrector is None:
            eliminate(w, t, j, a, lossless)
        for i in range(s.eliminated):
            r_i = ld(t, i, s.size)
            st(w.solved, j, i, r_i)
            for c in range(i + 1, reach(i, s.size, s.y)):
                st(t, c, s.size, ld(t, c, s.size) - ld(w.factor, j, i * s.size + c) * r_i)
        for i in range(s.kept):
            add(k, a, s.rhs + i, ld(t, s.eliminated + i, s.size))
            st(k, j, s.rhs + i, 0.0)
        if corrector is not None:
            for i in range(s.kept):
                for c in range(i, s.kept):
                    st(k, j, i * s.kept + c, 0.0)


@in_place
def join_bus(w, tree, settings, j, smu, lossless, corrector):
    """Add to the block of bus j what moves there, -S on y, and the residuals of the balances."""
    b, k, s = w.bus, w.block, at.system(lossless)
    s_pp, s_pq, s_qq, r_p, r_q = constraints.gather_bus(w, tree, settings, j, smu, corrector)
    yy, next_row, y = s.first_y, s.kept, s.rhs + s.v
    if corrector is None:
        take(k, j, yy, s_pp)
        take(k, j, yy + 1, s_pq)
        take(k, j, yy + next_row + 1, s_qq)
    st(k, j, y, ld(k, j, y) + ld(b, j, at.FP) + r_p)
    st(k, j, y + 1, ld(k, j, y + 1) + ld(b, j, at.FQ) + r_q)
    # It enters the lossless balances as well; those of the substation bind nothing.
    if lossless is not None:
        if j == 0:
            return
        if corrector is None:
            for o in (yy + 2, yy + 2 * (next_row + 1)):
                take(k, j, o, s_pp)
                take(k, j, o + 1, s_pq)
                take(k, j, o + next_row + 1, s_qq)
            take(k, j, yy + next_row + 2, s_pq)
        st(k, j, y + 2, ld(k, j, y + 2) + ld(b, j, at.GP) + r_p)
        st(k, j, y + 3, ld(k, j, y + 3) + ld(b, j, at.GQ) + r_q)


@in_place
def fill(w, t, tree, settings, j, flow, flow_hat, lossless):
    """The upper triangle of the matrix of line j: x, y, the sending bus's voltages and y."""
    b, k, s = w.bus, w.block, at.system(lossless)
    v, y_a = s.eliminated, s.eliminated + s.v
    r, x = tree.r[j], tree.x[j]
    drop = (r, x)
    zero = 0.0 * ld(b, j, at.L)
    for i in range(s.size):
        for c in range(i, s.size):
            st(t, i, c, zero)
    of_l = PROXIMAL_OF_L * settings.proximal * (r * r + x * x)
    on_v = constraints.curve_line(b, t, tree, j, settings.proximal, of_l, lossless)
    # The bus's own block, its voltages substituted.
    n_vv = ld(k, j, 0)
    for i in range(3):
        for c in range(i, 3):
            st(t, i, c, ld(t, i, c) + flow[i] * flow[c] * n_vv)
        for y in range(s.y):
            st(t, i, s.x + y, -flow[i] * ld(k, j, s.v + y))
        st(t, i, v, ld(t, i, v) - flow[i] * n_vv)
    st(t, v, v, on_v + n_vv)
    if lossless is not None:
        n_vh, n_hh = ld(k, j, 1), ld(k, j, s.kept + 1)
        for i in range(3):
            for c in range(2):
                st(t, i, 3 + c, flow[i] * flow_hat[c] * n_vh)
            st(t, i, v + 1, -flow[i] * n_vh)
        for i in range(2):
            for c in range(i, 2):
                st(t, 3 + i, 3 + c, ld(t, 3 + i, 3 + c) + flow_hat[i] * flow_hat[c] * n_hh)
            for y in range(s.y):
                st(t, 3 + i, s.x + y, -flow_hat[i] * ld(k, j, s.kept + s.v + y))
            st(t, 3 + i, v, ld(t, 3 + i, v) - flow_hat[i] * n_vh)
            st(t, 3 + i, v + 1, -flow_hat[i] * n_hh)
        st(t, v, v + 1, n_vh)
        st(t, v + 1, v + 1, n_hh)
    for y in range(s.y):
        for c in range(y, s.y):
            st(t, s.x + y, s.x + c, ld(k, j, s.first_y + y * s.kept + c))
        st(t, s.x + y, v, ld(k, j, s.v + y))
        if lossless is not None:
            st(t, s.x + y, v + 1, ld(k, j, s.kept + s.v + y))
    # What the line takes out of the balances at its two ends.
    for i in range(2):
        st(t, 0, s.x + i, ld(t, 0, s.x + i) + drop[i])
        st(t, 1 + i, s.x + i, ld(t, 1 + i, s.x + i) - 1.0)
        st(t, 1 + i, y_a + i, zero + 1.0)
        if lossless is not None:
            st(t, 3 + i, s.x + 2 + i, ld(t, 3 + i, s.x + 2 + i) - 1.0)
            if tree.parent[j] > 0:
                st(t, 3 + i, y_a + 2 + i, zero + 1.0)


@in_place
def right_of_voltages(b, k, j, smu, lossless, corrector):
    """Right-hand sides of v and vh of bus j, once the voltage drop is put in: e = r - N F."""
    s = at.system(lossless)
    zero = 0.0 * smu
    r_v, r_h = zero, zero
    if corrector is not None:
        r_v, r_h = constraints.force_bus(b, j, smu, lossless)
    n_vv, f_v = ld(k, j, 0), ld(b, j, at.FV)
    e_v = ld(k, j, s.rhs) + r_v - n_vv * f_v
    e_h = zero
    if lossless is not None:
        n_vh, n_hh, g_v = ld(k, j, 1), ld(k, j, s.kept + 1), ld(b, j, at.GV)
        e_v = e_v - n_vh * g_v
        e_h = ld(k, j, s.rhs + 1) + r_h - n_vh * f_v - n_hh * g_v
    return e_v, e_h


@in_place
def fill_right(w, t, tree, j, flow, flow_hat, e_v, e_h, smu, lossless, corrector):
    """The right-hand side of line j, in the column after the matrix."""
    b, k, s = w.bus, w.block, at.system(lossless)
    v, y_a, right = s.eliminated, s.eliminated + s.v, s.size
    zero = 0.0 * smu
    if corrector is None:
        for i in range(s.x):
            st(t, i, right, zero)
        st(t, v, right, zero)
    else:
        constraints.force_line(b, t, tree, j, smu, lossless)
    for i in range(3):
        st(t, i, right, ld(t, i, right) - flow[i] * e_v)
    st(t, v, right, ld(t, v, right) + e_v)
    if lossless is not None:
        for i in range(2):
            st(t, 3 + i, right, ld(t, 3 + i, right) - flow_hat[i] * e_h)
        st(t, v + 1, right, e_h)
    f_v = ld(b, j, at.FV)
    for y in range(s.y):
        r_y = ld(k, j, s.rhs + s.v + y) - ld(k, j, s.v + y) * f_v
        if lossless is not None:
            r_y = r_y - ld(k, j, s.kept + s.v + y) * ld(b, j, at.GV)
        st(t, s.x + y, right, r_y)
        st(t, y_a + y, right, zero)


@intrinsic
def _factorise(typing_context: Any, t: Any, factor: Any, j: Any, lossless: Any) -> Any:
    """Factorise x and y out of a matrix, in registers: LLVM doesn't unroll these loops by itself."""
    s = at.PLAIN if isinstance(lossless, types.NoneType) else at.LOSSLESS
    m, size = s.eliminated, s.size

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix, of_factor, line, _ = args

        def constant(i: int) -> Any:
            return ir.Constant(ir.IntType(64), i)

        def keep(f: int, x: Any) -> None:
            place = _entry(context, builder, types.none(factor), (of_factor, line, constant(f)), t.kind)
            builder.store(x, place, align=8)

        ends = [size - s.y + min(i, s.y) for i in range(m)] + [size] * s.kept  # as `reach` has it
        at = {
            (i, c): builder.gep(matrix, [constant(i * SCRATCH_COLUMNS + c)])
            for i in range(size)
            for c in range(i, ends[i])
        }
        x = {place: builder.load(address) for place, address in at.items()}
        one = ir.Constant(t.kind, [1.0] * LANES if t.value is _lanes else 1.0)
        for i in range(m):
            by_pivot = builder.fdiv(one, x[i, i], flags=_FLAGS)
            keep(m * size + i, by_pivot)
            for c in range(i + 1, ends[i]):
                f = builder.fmul(x[i, c], by_pivot, flags=_FLAGS)
                keep(i * size + c, f)
                for e in range(c, ends[i]):
                    x[c, e] = builder.fsub(x[c, e], builder.fmul(f, x[i, e], flags=_FLAGS), flags=_FLAGS)
        for i in range(m, size):
            for c in range(i, size):
                builder.store(x[i, c], at[i, c])
        return context.get_dummy_value()

    return types.none(t, factor, j, lossless), generate


@in_place
def eliminate(w, t, j, a, lossless):
    """Factorise x and y out of the matrix of line j and add what stays to the block of its sending bus."""
    s = at.system(lossless)
    _factorise(t, w.factor, j, lossless)
    for i in range(s.kept):
        for c in range(i, s.kept):
            add(w.block, a, i * s.kept + c, ld(t, s.eliminated + i, s.eliminated + c))


@in_place
def directions(w, tree, j, lossless):
    """Directions of line j (l, P, Q, Ph, Qh) and its receiving bus, given those of its sending bus."""
    b, t, s = w.bus, scratch(w.bus), at.system(lossless)
    v, y_a = s.eliminated, s.eliminated + s.v
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    st(t, 0, v, ld(b, a, at.DV))
    st(t, 0, y_a, ld(b, a, at.NP))
    st(t, 0, y_a + 1, ld(b, a, at.NQ))
    if lossless is not None:
        st(t, 0, v + 1, ld(b, a, at.DVH))
        st(t, 0, y_a + 2, ld(b, a, at.NHP))
        st(t, 0, y_a + 3, ld(b, a, at.NHQ))
    for i in range(s.eliminated - 1, -1, -1):
        d = ld(w.solved, j, i) * ld(w.factor, j, s.eliminated * s.size + i)
        for c in range(i + 1, reach(i, s.size, s.y)):
            d = d - ld(w.factor, j, i * s.size + c) * ld(t, 0, c)
        st(t, 0, i, d)
    dl, dp, dq = ld(t, 0, 0), ld(t, 0, 1), ld(t, 0, 2)
    st(b, j, at.DV, ld(b, j, at.FV) + ld(b, a, at.DV) - 2.0 * (r * dp + x * dq) + (r * r + x * x) * dl)
    st(b, j, at.NP, ld(t, 0, s.x))
    st(b, j, at.NQ, ld(t, 0, s.x + 1))
    dp_h, dq_h = dp, dq
    if lossless is not None:
        dp_h, dq_h = ld(t, 0, 3), ld(t, 0, 4)
        st(b, j, at.DVH, ld(b, j, at.GV) + ld(b, a, at.DVH) - 2.0 * (r * dp_h + x * dq_h))
        st(b, j, at.NHP, ld(t, 0, s.x + 2))
        st(b, j, at.NHQ, ld(t, 0, s.x + 3))
    return dl, dp, dq, dp_h, dq_h


@in_place
def directions_at_root(w, lossless):
    """New multipliers at the substation, whose voltage is given."""
    b, k, s = w.bus, w.block, at.system(lossless)
    pp, pq, qq = ld(k, 0, s.first_y), ld(k, 0, s.first_y + 1), ld(k, 0, s.first_y + s.kept + 1)
    r_p, r_q = ld(k, 0, s.rhs + s.v), ld(k, 0, s.rhs + s.v + 1)
    by_det = 1.0 / (pp * qq - pq * pq)
    st(b, 0, at.NP, (qq * r_p - pq * r_q) * by_det)
    st(b, 0, at.NQ, (pp * r_q - pq * r_p) * by_det)
    for y in range(2, s.y):
        st(b, 0, at.NEW_Y[y], 0.0)
    st(b, 0, at.DV, 0.0)
    st(b, 0, s.d_upper, 0.0)


@in_place
def forward(w, tree, lossless, corrector):
    """Substation to leaves: directions; the inverse of the longest step, and the sum of ds dz."""
    b = w.bus
    n = tree.parent.shape[0]
    smu = ld(b, n, at.CENTRING)
    zero = 0.0 * smu
    found = (zero, zero)
    dl, dp, dq, dp_h, dq_h = zero, zero, zero, zero, zero
    for j in range(n):
        if j > 0:
            dl, dp, dq, dp_h, dq_h = directions(w, tree, j, lossless)
        else:
            directions_at_root(w, lossless)
        price_p, price_q = ld(b, j, at.NP), ld(b, j, at.NQ)
        if lossless is not None:
            price_p, price_q = price_p + ld(b, j, at.NHP), price_q + ld(b, j, at.NHQ)
        found = constraints.step_bus(w, tree, j, price_p, price_q, smu, corrector, found)
        if j == 0:
            continue
        if corrector is not None:
            st(b, j, at.DL, dl)
            st(b, j, at.DP, dp)
            st(b, j, at.DQ, dq)
            if lossless is not None:
                st(b, j, at.DPH, dp_h)
                st(b, j, at.DQH, dq_h)
        found = constraints.step_line(b, tree, j, (dl, dp, dq, dp_h, dq_h), smu, corrector, lossless, found)
    return found
