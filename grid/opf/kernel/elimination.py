"""The linear system of an iteration, eliminated along the tree: leaves to substation, and back.

Line j eliminates x = (l, P, Q [, Ph, Qh]) and its bus's multipliers y = (LP, LQ [, HP, HQ]); what stays is a block
on the sending bus's voltages and y. The bus's own block is on (v [, vh], y); its voltages are substituted:
dv = FV + dv_A - c'x with c = (-z^2, 2r, 2x) on (l, P, Q), and dvh = GV + dvh_A - 2r dPh - 2x dQh.
Columns stand in the order x, y, v_A [, vh_A], y_A: l touches none of y_A, P only LP_A, Q only these two, and so on,
so that row i of the factors ends where `reach` says.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from peergrid.grid.compiled import in_place
from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.cones import bound_step, centre_cone, cone_step, open_bound, open_bounds, open_cone, push
from peergrid.grid.opf.kernel.lanes import (
    _FLAGS,
    LANES,
    SCRATCH_COLUMNS,
    _entry,
    _lanes,
    in_both,
    larger,
    ld,
    scratch,
    st,
)

PROXIMAL_OF_L = 1e-2


@in_place
def reach(i, size, n_y):
    """One past the last column that row i of the matrix touches."""
    return size - n_y + min(i, n_y)


@in_place
def gather(w, tree, settings, j, smu, corrector):
    """The flexible injections of bus j: S = sum c c' / D, and what they add to the right-hand side."""
    d = w.device
    zero = 0.0 * smu
    s_pp, s_pq, s_qq, r_p, r_q = zero, zero, zero, zero, zero
    for i in range(tree.first[j], tree.first[j + 1]):
        cp, cq = ld(d, i, at.CP), ld(d, i, at.CQ)
        if corrector is None:
            u = ld(d, i, at.U)
            a = ld(d, i, at.A)
            least, most = open_bounds(d, i, at.AT_LEAST, at.AT_MOST, u - ld(d, i, at.LEAST), ld(d, i, at.MOST) - u)
            by_d = 1.0 / (a + least + most + settings.device_proximal)
            force = -(a * u + ld(d, i, at.B))
            st(d, i, at.INVERSE, by_d)
            s_pp, s_pq, s_qq = s_pp + cp * cp * by_d, s_pq + cp * cq * by_d, s_qq + cq * cq * by_d
        else:
            by_d = ld(d, i, at.INVERSE)
            force = ld(d, i, at.FORCE) + push(d, i, at.AT_LEAST, smu) - push(d, i, at.AT_MOST, smu)
        st(d, i, at.FORCE, force)
        r_p, r_q = r_p + cp * force * by_d, r_q + cq * force * by_d
    return s_pp, s_pq, s_qq, r_p, r_q


@in_place
def open_cones(b, tree, lossless):
    """Scaling of all cones, in a pass of its own: its divisions then don't wait for the factors of other lines."""
    for j in range(1, tree.parent.shape[0]):
        v_a = ld(b, tree.parent[j], at.V)
        open_cone(b, j, at.FLOW, ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L), v_a)
        if lossless is not None and tree.rated[j]:
            open_cone(b, j, at.FLOW_HAT, ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX), v_a)


@in_place
def backward(w, tree, settings, lossless, corrector):
    """Leaves to substation: scaling, factors and the predictor's right-hand side, or the corrector's alone."""
    b, k, t = w.bus, w.block, scratch(w.bus)
    n = tree.parent.shape[0]
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, rhs, yy = m + p, p * p, n_v * (p + 1)
    zero = 0.0 * ld(b, n, at.GAP)
    smu = zero if corrector is None else ld(b, n, at.CENTRING)
    for i in range(p):
        st(k, 0, rhs + i, 0.0)
        if corrector is None:
            for c in range(p):
                st(k, 0, i * p + c, 0.0)
    if corrector is None:
        open_cones(b, tree, lossless)
    for j in range(n - 1, -1, -1):
        s_pp, s_pq, s_qq, r_p, r_q = gather(w, tree, settings, j, smu, corrector)
        if corrector is None:
            st(k, j, yy, ld(k, j, yy) - s_pp)
            st(k, j, yy + 1, ld(k, j, yy + 1) - s_pq)
            st(k, j, yy + p + 1, ld(k, j, yy + p + 1) - s_qq)
        st(k, j, rhs + n_v, ld(k, j, rhs + n_v) + ld(b, j, at.FP) + r_p)
        st(k, j, rhs + n_v + 1, ld(k, j, rhs + n_v + 1) + ld(b, j, at.FQ) + r_q)
        if j == 0:
            continue
        a = tree.parent[j]
        r, x = tree.r[j], tree.x[j]
        flow, flow_hat = (-(r * r + x * x), 2.0 * r, 2.0 * x), (2.0 * r, 2.0 * x)
        v, v_a, l = ld(b, j, at.V), ld(b, a, at.V), ld(b, j, at.L)
        # The injections enter the lossless balances as well, and the voltage bounds join the block.
        if lossless is not None:
            if corrector is None:
                for o in (yy + 2, yy + 2 * (p + 1)):
                    st(k, j, o, ld(k, j, o) - s_pp)
                    st(k, j, o + 1, ld(k, j, o + 1) - s_pq)
                    st(k, j, o + p + 1, ld(k, j, o + p + 1) - s_qq)
                st(k, j, yy + p + 2, ld(k, j, yy + p + 2) - s_pq)
            st(k, j, rhs + n_v + 2, ld(k, j, rhs + n_v + 2) + ld(b, j, at.GP) + r_p)
            st(k, j, rhs + n_v + 3, ld(k, j, rhs + n_v + 3) + ld(b, j, at.GQ) + r_q)
        if corrector is None:
            bounded = v
            if lossless is not None:
                bounded = ld(b, j, at.VH)
            low, high = open_bounds(b, j, at.LOW, at.HIGH, v - ld(b, j, at.V_MIN), ld(b, j, at.V_MAX) - bounded)
            n_vv = ld(k, j, 0) + low
            if lossless is not None:
                st(k, j, p + 1, ld(k, j, p + 1) + high)
            else:
                n_vv = n_vv + high
            st(k, j, 0, n_vv)
            r_v, r_h = zero, zero
        else:
            n_vv = ld(k, j, 0)
            r_v, r_h = push(b, j, at.LOW, smu), -push(b, j, at.HIGH, smu)
            if lossless is None:
                r_v = r_v + r_h
        f_v = ld(b, j, at.FV)
        e_v = ld(k, j, rhs) + r_v - n_vv * f_v
        if lossless is not None:
            g_v = ld(b, j, at.GV)
            n_vh, n_hh = ld(k, j, 1), ld(k, j, p + 1)
            e_v = e_v - n_vh * g_v
            e_h = ld(k, j, rhs + 1) + r_h - n_vh * f_v - n_hh * g_v
        if corrector is None:
            fill(w, t, tree, settings, j, lossless, v_a, l)
        # The right-hand side, in the column after the matrix.
        if corrector is None:
            k_p, k_q, k_l, k_v = zero, zero, zero, zero
        else:
            centre_cone(b, j, at.FLOW, ld(b, j, at.P), ld(b, j, at.Q), l, v_a, smu)
            k_p, k_q, k_l, k_v = (
                ld(b, j, at.FLOW + at.KP),
                ld(b, j, at.FLOW + at.KQ),
                ld(b, j, at.FLOW + at.KL),
                ld(b, j, at.FLOW + at.KV),
            )
            if tree.rated[j]:
                k_l = k_l - push(b, j, at.RATING, smu)
        st(t, 0, size, k_l - flow[0] * e_v)
        st(t, 1, size, k_p - flow[1] * e_v)
        st(t, 2, size, k_q - flow[2] * e_v)
        if lossless is not None:
            h_p, h_q = zero, zero
            if corrector is not None and tree.rated[j]:
                centre_cone(b, j, at.FLOW_HAT, ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX), v_a, smu)
                h_p, h_q = ld(b, j, at.FLOW_HAT + at.KP), ld(b, j, at.FLOW_HAT + at.KQ)
                k_v = k_v + ld(b, j, at.FLOW_HAT + at.KV)
            st(t, 3, size, h_p - flow_hat[0] * e_h)
            st(t, 4, size, h_q - flow_hat[1] * e_h)
            st(t, m + 1, size, e_h)
        st(t, m, size, k_v + e_v)
        for y in range(n_y):
            r_y = ld(k, j, rhs + n_v + y) - ld(k, j, n_v + y) * f_v
            if lossless is not None:
                r_y = r_y - ld(k, j, p + n_v + y) * g_v
            st(t, n_x + y, size, r_y)
            st(t, m + n_v + y, size, zero)
        if corrector is None:
            eliminate(w, t, j, a, lossless)
        for i in range(m):
            r_i = ld(t, i, size)
            st(w.solved, j, i, r_i)
            for c in range(i + 1, reach(i, size, n_y)):
                st(t, c, size, ld(t, c, size) - ld(w.factor, j, i * size + c) * r_i)
        for i in range(p):
            st(k, a, rhs + i, ld(k, a, rhs + i) + ld(t, m + i, size))
            st(k, j, rhs + i, 0.0)
        if corrector is not None:
            for i in range(p):
                for c in range(i, p):
                    st(k, j, i * p + c, 0.0)


@in_place
def fill(w, t, tree, settings, j, lossless, v_a, l):
    """The upper triangle of the matrix of line j: x, y, the sending bus's voltages and y."""
    b, k = w.bus, w.block
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, yy = m + p, n_v * (p + 1)
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    flow, flow_hat, drop = (-(r * r + x * x), 2.0 * r, 2.0 * x), (2.0 * r, 2.0 * x), (r, x)
    zero = 0.0 * l
    for i in range(size):
        for c in range(i, size):
            st(t, i, c, zero)
    # Cones and ratings on x and the sending bus's voltage.
    a0, a1, a2, a3, h = (
        ld(b, j, at.FLOW + at.A0),
        ld(b, j, at.FLOW + at.A1),
        ld(b, j, at.FLOW + at.A2),
        ld(b, j, at.FLOW + at.A3),
        ld(b, j, at.FLOW + at.H),
    )
    h2 = 2.0 * h
    h_ll, h_vv = h2 * a2 * a2, h2 * a3 * a3
    if tree.rated[j]:
        h_ll = h_ll + open_bound(b, j, at.RATING, ld(b, j, at.L_MAX) - l)
    st(t, 0, 0, h_ll + PROXIMAL_OF_L * settings.proximal * (r * r + x * x))
    st(t, 0, 1, h2 * a2 * a0)
    st(t, 0, 2, h2 * a2 * a1)
    st(t, 1, 1, h2 * (a0 * a0 + 1.0) + settings.proximal)
    st(t, 1, 2, h2 * a0 * a1)
    st(t, 2, 2, h2 * (a1 * a1 + 1.0) + settings.proximal)
    st(t, 0, m, h2 * a2 * a3 - h)
    st(t, 1, m, h2 * a0 * a3)
    st(t, 2, m, h2 * a1 * a3)
    if lossless is not None:
        st(t, 3, 3, zero + settings.proximal)
        st(t, 4, 4, zero + settings.proximal)
        if tree.rated[j]:
            g0, g1, g3 = ld(b, j, at.FLOW_HAT + at.A0), ld(b, j, at.FLOW_HAT + at.A1), ld(b, j, at.FLOW_HAT + at.A3)
            g = 2.0 * ld(b, j, at.FLOW_HAT + at.H)
            st(t, 3, 3, g * (g0 * g0 + 1.0) + settings.proximal)
            st(t, 3, 4, g * g0 * g1)
            st(t, 4, 4, g * (g1 * g1 + 1.0) + settings.proximal)
            st(t, 3, m, g * g0 * g3)
            st(t, 4, m, g * g1 * g3)
            h_vv = h_vv + g * g3 * g3
    # The bus's own block, its voltages substituted.
    n_vv = ld(k, j, 0)
    for i in range(3):
        for c in range(i, 3):
            st(t, i, c, ld(t, i, c) + flow[i] * flow[c] * n_vv)
        for y in range(n_y):
            st(t, i, n_x + y, -flow[i] * ld(k, j, n_v + y))
        st(t, i, m, ld(t, i, m) - flow[i] * n_vv)
    st(t, m, m, h_vv + n_vv)
    if lossless is not None:
        n_vh, n_hh = ld(k, j, 1), ld(k, j, p + 1)
        for i in range(3):
            for c in range(2):
                st(t, i, 3 + c, flow[i] * flow_hat[c] * n_vh)
            st(t, i, m + 1, -flow[i] * n_vh)
        for i in range(2):
            for c in range(i, 2):
                st(t, 3 + i, 3 + c, ld(t, 3 + i, 3 + c) + flow_hat[i] * flow_hat[c] * n_hh)
            for y in range(n_y):
                st(t, 3 + i, n_x + y, -flow_hat[i] * ld(k, j, p + n_v + y))
            st(t, 3 + i, m, ld(t, 3 + i, m) - flow_hat[i] * n_vh)
            st(t, 3 + i, m + 1, -flow_hat[i] * n_hh)
        st(t, m, m + 1, n_vh)
        st(t, m + 1, m + 1, n_hh)
    for y in range(n_y):
        for c in range(y, n_y):
            st(t, n_x + y, n_x + c, ld(k, j, yy + y * p + c))
        st(t, n_x + y, m, ld(k, j, n_v + y))
        if lossless is not None:
            st(t, n_x + y, m + 1, ld(k, j, p + n_v + y))
    # What the line takes out of the balances at its two ends.
    for i in range(2):
        st(t, 0, n_x + i, ld(t, 0, n_x + i) + drop[i])
        st(t, 1 + i, n_x + i, ld(t, 1 + i, n_x + i) - 1.0)
        st(t, 1 + i, m + n_v + i, zero + 1.0)
        if lossless is not None:
            st(t, 3 + i, n_x + 2 + i, ld(t, 3 + i, n_x + 2 + i) - 1.0)
            if a > 0:
                st(t, 3 + i, m + n_v + 2 + i, zero + 1.0)


@intrinsic
def _factorise(typing_context: Any, t: Any, factor: Any, j: Any, lossless: Any) -> Any:
    """Factorise x and y out of a matrix, in registers: LLVM doesn't unroll these loops by itself."""
    m, n_y = (5, 2) if isinstance(lossless, types.NoneType) else (9, 4)
    size = m + n_y + n_y // 2

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix, of_factor, line, _ = args

        def constant(i: int) -> Any:
            return ir.Constant(ir.IntType(64), i)

        def keep(f: int, x: Any) -> None:
            place = _entry(context, builder, types.none(factor), (of_factor, line, constant(f)), t.kind)
            builder.store(x, place, align=8)

        ends = [size - n_y + min(i, n_y) for i in range(m)] + [size] * (size - m)  # as `reach` has it
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
    m, p = in_both(lossless, 5, 9), in_both(lossless, 3, 6)
    _factorise(t, w.factor, j, lossless)
    for i in range(p):
        for c in range(i, p):
            st(w.block, a, i * p + c, ld(w.block, a, i * p + c) + ld(t, m + i, m + c))


@in_place
def directions(w, tree, j, lossless):
    """Directions of line j (l, P, Q, Ph, Qh) and its receiving bus, given those of its sending bus."""
    b, t = w.bus, scratch(w.bus)
    n_x, n_y, n_v = in_both(lossless, 3, 5), in_both(lossless, 2, 4), in_both(lossless, 1, 2)
    m, p = n_x + n_y, n_v + n_y
    size, y_a = m + p, m + n_v
    a = tree.parent[j]
    r, x = tree.r[j], tree.x[j]
    st(t, 0, m, ld(b, a, at.DV))
    st(t, 0, y_a, ld(b, a, at.NP))
    st(t, 0, y_a + 1, ld(b, a, at.NQ))
    if lossless is not None:
        st(t, 0, m + 1, ld(b, a, at.DVH))
        st(t, 0, y_a + 2, ld(b, a, at.NHP))
        st(t, 0, y_a + 3, ld(b, a, at.NHQ))
    for i in range(m - 1, -1, -1):
        d = ld(w.solved, j, i) * ld(w.factor, j, m * size + i)
        for c in range(i + 1, reach(i, size, n_y)):
            d = d - ld(w.factor, j, i * size + c) * ld(t, 0, c)
        st(t, 0, i, d)
    dl, dp, dq = ld(t, 0, 0), ld(t, 0, 1), ld(t, 0, 2)
    st(b, j, at.DV, ld(b, j, at.FV) + ld(b, a, at.DV) - 2.0 * (r * dp + x * dq) + (r * r + x * x) * dl)
    st(b, j, at.NP, ld(t, 0, n_x))
    st(b, j, at.NQ, ld(t, 0, n_x + 1))
    dp_h, dq_h = dp, dq
    if lossless is not None:
        dp_h, dq_h = ld(t, 0, 3), ld(t, 0, 4)
        st(b, j, at.DVH, ld(b, j, at.GV) + ld(b, a, at.DVH) - 2.0 * (r * dp_h + x * dq_h))
        st(b, j, at.NHP, ld(t, 0, n_x + 2))
        st(b, j, at.NHQ, ld(t, 0, n_x + 3))
    return dl, dp, dq, dp_h, dq_h


@in_place
def directions_at_root(w, lossless):
    """New multipliers at the substation, whose voltage is given."""
    b, k = w.bus, w.block
    p, n_v = in_both(lossless, 3, 6), in_both(lossless, 1, 2)
    yy, rhs = n_v * (p + 1), p * p + n_v
    pp, pq, qq = ld(k, 0, yy), ld(k, 0, yy + 1), ld(k, 0, yy + p + 1)
    r_p, r_q = ld(k, 0, rhs), ld(k, 0, rhs + 1)
    by_det = 1.0 / (pp * qq - pq * pq)
    st(b, 0, at.NP, (qq * r_p - pq * r_q) * by_det)
    st(b, 0, at.NQ, (pp * r_q - pq * r_p) * by_det)
    st(b, 0, at.DV, 0.0)
    if lossless is not None:
        st(b, 0, at.NHP, 0.0)
        st(b, 0, at.NHQ, 0.0)
        st(b, 0, at.DVH, 0.0)


@in_place
def direction_of_injection(w, i, price_p, price_q):
    """How far a flexible injection moves at its bus's new prices."""
    d = w.device
    return (ld(d, i, at.CP) * price_p + ld(d, i, at.CQ) * price_q + ld(d, i, at.FORCE)) * ld(d, i, at.INVERSE)


@in_place
def forward(w, tree, lossless, corrector):
    """Substation to leaves: directions; the inverse of the longest step, and the sum of ds dz."""
    b, d = w.bus, w.device
    n = tree.parent.shape[0]
    smu = ld(b, n, at.CENTRING)
    inverse = 0.0 * smu
    cross = 0.0 * smu
    dl, dp, dq, dp_h, dq_h = inverse, inverse, inverse, inverse, inverse
    for j in range(n):
        if j > 0:
            dl, dp, dq, dp_h, dq_h = directions(w, tree, j, lossless)
        else:
            directions_at_root(w, lossless)
        price_p, price_q = ld(b, j, at.NP), ld(b, j, at.NQ)
        if lossless is not None:
            price_p, price_q = price_p + ld(b, j, at.NHP), price_q + ld(b, j, at.NHQ)
        for i in range(tree.first[j], tree.first[j + 1]):
            du = direction_of_injection(w, i, price_p, price_q)
            if corrector is not None:
                st(d, i, at.DU, du)
            step, product = bound_step(d, i, at.AT_LEAST, du, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
            step, product = bound_step(d, i, at.AT_MOST, -du, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
        if j == 0:
            continue
        a = tree.parent[j]
        if corrector is not None:
            st(b, j, at.DL, dl)
            st(b, j, at.DP, dp)
            st(b, j, at.DQ, dq)
            if lossless is not None:
                st(b, j, at.DPH, dp_h)
                st(b, j, at.DQH, dq_h)
        dv, v_a, dv_a = ld(b, j, at.DV), ld(b, a, at.V), ld(b, a, at.DV)
        step, product = bound_step(b, j, at.LOW, dv, smu, corrector)
        inverse, cross = larger(inverse, step), cross + product
        bounded = dv
        if lossless is not None:
            bounded = ld(b, j, at.DVH)
        step, product = bound_step(b, j, at.HIGH, -bounded, smu, corrector)
        inverse, cross = larger(inverse, step), cross + product
        p, q, l = ld(b, j, at.P), ld(b, j, at.Q), ld(b, j, at.L)
        step, product = cone_step(b, j, at.FLOW, p, q, l, v_a, dp, dq, dl, dv_a, corrector)
        inverse, cross = larger(inverse, step), cross + product
        if tree.rated[j]:
            step, product = bound_step(b, j, at.RATING, -dl, smu, corrector)
            inverse, cross = larger(inverse, step), cross + product
            if lossless is not None:
                p, q, l = ld(b, j, at.PH), ld(b, j, at.QH), ld(b, j, at.L_MAX)
                step, product = cone_step(b, j, at.FLOW_HAT, p, q, l, v_a, dp_h, dq_h, 0.0 * dp_h, dv_a, corrector)
                inverse, cross = larger(inverse, step), cross + product
    return inverse, cross
