"""What the coordinators of the distributed optimal power flow do; read `propose` and `agree` first.

There is a coordinator at every bus. It is responsible for the injections there, the line that feeds the bus, and the
bus's voltage. All that it learns of the network is what its parent and children send in `Mail`. Each iteration has two
exchanges:

    propose   x <- argmin f(x) + sum rho w / 2 (x - (z - u))^2          each variable against all copies of it
    agree     z <- argmin sum rho w / 2 (z - (x + u))^2                 such that the bus's balances and drop hold
              u <- u + x - z                                            multipliers y = rho w u

x are the variables of their owner: injections within their bounds; P, Q, l and a voltage W within the cone
P^2 + Q^2 <= l W and the line's rating; the voltage within its limits. z are a coordinator's copies of the variables in
its equations: its own variables, the flows into its children's lines, and the voltage of its parent, of which W is
another variable. All of these problems are solved in closed form, or by Newton's method in one unknown.

With the lossless upper voltage there is a second set of flows and voltages, `_HAT`, with equations of their own.

All in p.u., v for squared voltages and l for squared currents; prices in TYPICAL_PRICE_PER_KWH. Arrays have no axis of
problems, except in `solve_rows`. What a compiled function calls stands in this file, as numba notices edits by file.

Source: the consensus form of Boyd, Parikh, Chu, Peleato and Eckstein, Foundations and Trends in Machine Learning 3(1),
2011, with over-relaxation and residual balancing (sections 3.4 and 7); closed-form subproblems for the branch flow
model, Peng and Low, IEEE Trans. Smart Grid 9(1), 2018 (arXiv 1404.0700).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from peergrid.grid.compiled import compiled, in_place

# Copies that a coordinator holds, of which the first five are enough without lossless flows. W, the voltage that the
# line's cone sees at its sending end, has no copy of its own: it must agree with the copy of A's voltage.
P, Q, L, V, A, P_HAT, Q_HAT, V_HAT, A_HAT = range(9)
W, W_HAT = 9, 10
N_FIELDS = 11
PLAIN_COPIES, ALL_COPIES = 5, 9
# Equations: balances of active and reactive power, drop of voltage; the first three without lossless flows.
PLAIN_EQUATIONS, ALL_EQUATIONS = 3, 6
# Flows of a line that its sending bus has copies of, and the equation of that bus which each of them enters.
OF_FLOWS = (P, Q, P_HAT, Q_HAT)
INTO = (0, 1, 3, 4)
# Multipliers of limits.
V_MIN, V_MAX, I_MAX, I_MAX_HAT = range(4)
# Of an injection: curvature and slope of its cost, bounds, and what it adds to both balances.
CURVATURE, SLOPE, LOW, HIGH, OF_P, OF_Q = range(6)
# Of an injection's state.
X, Z, U = range(3)

# Weights of copies, found by a random search over problems on four feeders. Impedances are relative to REFERENCE_Z; a
# line of a milliohm needs a small weight on its current, or it takes thousands of iterations to converge.
REFERENCE_Z = 0.02
LEAST_Z = 2e-5
W_FLOW, W_FLOW_AT_PARENT, W_INJECTION = 1.0, 0.5, 1.0
W_CURRENT, W_VOLTAGE, W_CONE_VOLTAGE = 0.2, 4.0, 0.9  # times the impedance to the power 1, -1/3, -1/2

NEWTON_STEPS = 40


class Network(NamedTuple):
    """What stays fixed: children of j are child[first_child[j] : first_child[j + 1]], its injections likewise."""

    parent: Any
    first_child: Any
    child: Any
    first: Any
    r: Any
    x: Any
    rated: Any
    weight: Any  # [bus, field]
    column: Any  # [bus, copy, equation]: how copies enter the equations


class Data(NamedTuple):
    """Problems, one per row, in p.u.; without that axis for `propose` and `agree`."""

    load: Any  # [row, bus, active and reactive]
    v_source: Any  # [row]
    v_min: Any  # [row, bus]
    v_max: Any
    l_max: Any
    injection: Any  # [row, injection, field]
    root_price: Any  # [row]: of the price signals; the nodal price at the substation where it is NaN


class State(NamedTuple):
    """What each coordinator remembers of its own variables; with an axis of rows in front for `solve_rows`."""

    x: Any  # [bus, field]
    z: Any  # [bus, field]
    u: Any
    held_z: Any  # [line, flow]: copies of a line's flows that its sending bus holds
    held_u: Any
    injection: Any  # [injection, X Z U]
    multiplier: Any  # [bus, equation], divided by rho
    limit: Any  # [bus, limit], divided by rho
    signal: Any  # [bus]
    rho: Any  # [1]


class Mail(NamedTuple):
    """Messages of one iteration, by line: copies less u go to the variable's owner, values to those who hold copies."""

    copies_up: Any  # of the parent's voltages
    copies_down: Any  # of the line's flows
    values_up: Any  # the line's flows
    values_down: Any  # the parent's voltage and price signal, then its lossless voltage


class Factors(NamedTuple):
    """Inverses of C C' / W, see `agree`, and scratch."""

    inverse: Any  # [bus, equation, equation]
    wanted: Any  # [field]
    missed: Any  # [equation]


class Settings(NamedTuple):
    """When to stop, and how to get there."""

    power_tolerance: float
    voltage_tolerance: float
    dual_tolerance: float
    most_iterations: int
    over_relaxation: float
    check_every: int
    """Iterations from one check of residuals to the next: their maxima go up the tree, and what follows comes down."""
    balance_every: int
    balance_pause: int
    """Rho is looked at every so many iterations, and later once in this part of all that were since the limits or the
    tolerance changed: ADMM converges for a rho that stays."""
    balance_band: float
    """Rho is doubled or halved where the primal residual is this many times the dual one, or the reverse."""


class Found(NamedTuple):
    """By row: iterations and residuals; by row and iteration, where they are recorded, the iterates."""

    iterations: Any
    residual: Any  # [row, power, voltage, dual]
    trace: Any  # [row, iteration, exchange, power, voltage, dual, rho]
    signals: Any  # [row, iteration, bus]


@in_place
def within_cone(
    a: float, b: float, c: float, d: float, w_flow: float, w_l: float, w_v: float
) -> tuple[float, float, float, float]:
    """The point with P^2 + Q^2 <= l v, both not negative, that is closest to (a, b, c, d), by the weights.

    With s = sqrt(w_l w_v), e and g half the sum and the difference of sqrt(w_v) v and sqrt(w_l) l at (c, d), and t the
    multiplier over s, stationarity and the cone give one equation in theta = (1 - t) / (1 + t), -1 < theta <= 1:

        theta sqrt(g^2 + s (a^2 + b^2) R^2) = e,    R = 2 / ((1 + k) + (1 - k) theta),    k = 2 s / w_flow

    P = R (1 + theta) / 2 a with this R, and the apex is closest where there is no theta above -1.
    """
    size = a * a + b * b
    if c >= 0.0 and d >= 0.0 and size <= c * d:
        return a, b, c, d
    root_l, root_v = np.sqrt(w_l), np.sqrt(w_v)
    s = root_l * root_v
    k = 2.0 * s / w_flow
    e, g = 0.5 * (root_v * d + root_l * c), 0.5 * (root_v * d - root_l * c)
    g2, pull = g * g, s * size
    if e <= -np.sqrt(g2 + pull / (k * k)):
        return 0.0, 0.0, 0.0, 0.0
    low, high = -1.0, 1.0
    theta = min(max(e / np.sqrt(g2 + pull), -0.999999), 1.0)
    for _ in range(NEWTON_STEPS):
        ratio = 2.0 / ((1.0 + k) + (1.0 - k) * theta)
        length = np.sqrt(g2 + pull * ratio * ratio)
        excess = theta * length - e
        if excess > 0.0:
            high = theta
        else:
            low = theta
        after = theta - excess / (length - 0.5 * theta * pull * ratio**3 * (1.0 - k) / length)
        if not (low <= after <= high):
            after = 0.5 * (low + high)
        moved = abs(after - theta)
        theta = after
        if moved < 1e-15:
            break
    t = (1.0 - theta) / (1.0 + theta)
    shrink = 1.0 / (1.0 + k * t)
    difference = 0.5 * g * (1.0 + theta)
    half_sum = np.sqrt(difference * difference + pull * shrink * shrink)
    return a * shrink, b * shrink, (half_sum - difference) / root_l, (half_sum + difference) / root_v


@in_place
def within_rating(
    a: float, b: float, d: float, w_flow: float, w_v: float, l_max: float
) -> tuple[float, float, float, float]:
    """The point with P^2 + Q^2 <= l_max v that is closest to (a, b, d), by the weights, and the multiplier.

    P = a / (1 + 2 mu / w_flow), v = d + mu l_max / w_v: a concave equation in mu, solved by Newton's steps from below.
    """
    size = a * a + b * b
    if size <= l_max * d:
        return a, b, d, 0.0
    mu = max(0.0, -d * w_v / l_max)
    for _ in range(NEWTON_STEPS):
        shrink = 1.0 / (1.0 + 2.0 * mu / w_flow)
        room = l_max * (d + mu * l_max / w_v) - size * shrink * shrink
        step = -room / (l_max * l_max / w_v + 4.0 * size * shrink**3 / w_flow)
        mu += step
        if abs(step) <= 1e-15 * (1.0 + mu):
            break
    shrink = 1.0 / (1.0 + 2.0 * mu / w_flow)
    return a * shrink, b * shrink, d + mu * l_max / w_v, mu


@in_place
def propose(j: int, network: Network, data: Data, state: State, mail: Mail) -> None:
    """Bus j sets its own variables, given all copies of them, and posts their values."""
    x, z, u, weight = state.x, state.z, state.u, network.weight
    given, injection, rho = data.injection, state.injection, state.rho[0]
    has_hat = mail.values_up.shape[1] == 4
    for i in range(network.first[j], network.first[j + 1]):
        pull = rho * W_INJECTION
        wanted = pull * (injection[i, Z] - injection[i, U]) - given[i, SLOPE]
        injection[i, X] = min(max(wanted / (pull + given[i, CURVATURE]), given[i, LOW]), given[i, HIGH])

    if j == 0:
        x[0, V] = x[0, V_HAT] = data.v_source
    else:
        w_flow = W_FLOW + W_FLOW_AT_PARENT
        a = (W_FLOW * (z[j, P] - u[j, P]) + W_FLOW_AT_PARENT * mail.copies_down[j, 0]) / w_flow
        b = (W_FLOW * (z[j, Q] - u[j, Q]) + W_FLOW_AT_PARENT * mail.copies_down[j, 1]) / w_flow
        c, d = z[j, L] - u[j, L], z[j, A] - u[j, W]
        p, q, l, w = within_cone(a, b, c, d, w_flow, weight[j, L], weight[j, W])  # noqa: E741
        state.limit[j, I_MAX] = 0.0
        if l > data.l_max[j]:
            l = data.l_max[j]  # noqa: E741
            p, q, w, mu = within_rating(a, b, d, w_flow, weight[j, W], l)
            state.limit[j, I_MAX] = mu * w - weight[j, L] * (l - c)
        x[j, P], x[j, Q], x[j, L], x[j, W] = p, q, l, w
        mail.values_up[j, 0], mail.values_up[j, 1] = p, q

        total, target = weight[j, V], weight[j, V] * (z[j, V] - u[j, V])
        for at in range(network.first_child[j], network.first_child[j + 1]):
            k = network.child[at]
            total += weight[k, A]
            target += weight[k, A] * mail.copies_up[k, 0]
        target /= total
        v = max(target, data.v_min[j])
        state.limit[j, V_MIN] = total * (v - target)
        state.limit[j, V_MAX] = 0.0
        if not has_hat and v > data.v_max[j]:
            v = data.v_max[j]
            state.limit[j, V_MAX] = total * (target - v)
        x[j, V] = v
        if has_hat:
            _propose_lossless(j, network, data, state, mail)

    for at in range(network.first_child[j], network.first_child[j + 1]):
        k = network.child[at]
        mail.values_down[k, 0], mail.values_down[k, 1] = x[j, V], state.signal[j]
        if has_hat:
            mail.values_down[k, 2] = x[j, V_HAT]


@in_place
def _propose_lossless(j: int, network: Network, data: Data, state: State, mail: Mail) -> None:
    x, z, u, weight = state.x, state.z, state.u, network.weight
    w_flow, a, b = W_FLOW, z[j, P_HAT] - u[j, P_HAT], z[j, Q_HAT] - u[j, Q_HAT]
    # The substation needs no balances of lossless flows, and holds no copies of them.
    if network.parent[j] > 0:
        w_flow += W_FLOW_AT_PARENT
        a = (W_FLOW * a + W_FLOW_AT_PARENT * mail.copies_down[j, 2]) / w_flow
        b = (W_FLOW * b + W_FLOW_AT_PARENT * mail.copies_down[j, 3]) / w_flow
    state.limit[j, I_MAX_HAT] = 0.0
    if network.rated[j]:
        d = z[j, A] - u[j, W_HAT]
        a, b, w, mu = within_rating(a, b, d, w_flow, weight[j, W_HAT], data.l_max[j])
        x[j, W_HAT], state.limit[j, I_MAX_HAT] = w, mu
    x[j, P_HAT], x[j, Q_HAT] = a, b
    mail.values_up[j, 2], mail.values_up[j, 3] = a, b

    total, target = weight[j, V_HAT], weight[j, V_HAT] * (z[j, V_HAT] - u[j, V_HAT])
    for at in range(network.first_child[j], network.first_child[j + 1]):
        k = network.child[at]
        total += weight[k, A_HAT]
        target += weight[k, A_HAT] * mail.copies_up[k, 1]
    target /= total
    x[j, V_HAT] = min(target, data.v_max[j])
    state.limit[j, V_MAX] = total * (target - x[j, V_HAT])


@in_place
def agree(
    j: int, network: Network, data: Data, state: State, mail: Mail, factors: Factors, over_relaxation: float
) -> tuple[float, float, float]:
    """Bus j makes its copies fulfil its equations, and posts them; residuals of power, voltage and of the dual.

    With C the columns of its copies, W their weights and t what they want to be, the copies are z = t - C' nu / W,
    where (C C' / W) nu = C t - load; rho nu are the multipliers of the equations. Residuals are sqrt(W) (x - z), of
    voltages x - z, and rho sqrt(W) times what z has moved by.
    """
    inverse, wanted, missed = factors
    x, z, u, weight, column = state.x, state.z, state.u, network.weight, network.column
    rho, kept = state.rho[0], 1.0 - over_relaxation
    has_hat = mail.values_up.shape[1] == 4
    n_equation = ALL_EQUATIONS if has_hat else PLAIN_EQUATIONS
    n_copy = 0 if j == 0 else ALL_COPIES if has_hat else PLAIN_COPIES
    # The substation's balances contain only its injections and the flows that it sends; it has no lossless balances.
    n_flow = 4 if has_hat and j > 0 else 2
    nu, given, injection = state.multiplier, data.injection, state.injection
    missed[0], missed[1], missed[2] = -data.load[j, 0], -data.load[j, 1], 0.0
    for i in range(network.first[j], network.first[j + 1]):
        injection[i, U] += over_relaxation * injection[i, X] + kept * injection[i, Z]
        missed[0] += given[i, OF_P] * injection[i, U]
        missed[1] += given[i, OF_Q] * injection[i, U]
    for e in range(3, n_equation):
        missed[e] = missed[e - 3] if j > 0 else 0.0
    for at in range(network.first_child[j], network.first_child[j + 1]):
        k = network.child[at]
        for f in range(n_flow):
            state.held_u[k, f] += over_relaxation * mail.values_up[k, f] + kept * state.held_z[k, f]
            missed[INTO[f]] -= state.held_u[k, f]
    if j > 0:
        for f in range(n_copy):
            value = mail.values_down[j, 0] if f == A else mail.values_down[j, 2] if f == A_HAT else x[j, f]
            wanted[f] = over_relaxation * value + kept * z[j, f] + u[j, f]
        for f in (W, W_HAT):
            wanted[f] = over_relaxation * x[j, f] + kept * z[j, A] + u[j, f]
        for f in (A, W, W_HAT):
            u[j, f] = wanted[f]
        tied = weight[j, A] + weight[j, W] + (weight[j, W_HAT] if has_hat else 0.0)
        mean = weight[j, A] * wanted[A] + weight[j, W] * wanted[W]
        if has_hat:
            mean += weight[j, W_HAT] * wanted[W_HAT]
        wanted[A] = mean / tied
        for f in range(n_copy):
            for e in range(n_equation):
                missed[e] += column[j, f, e] * wanted[f]

    for e in range(n_equation):
        nu[j, e] = 0.0
        for g in range(n_equation):
            nu[j, e] += inverse[j, e, g] * missed[g]

    power, voltage, dual = 0.0, 0.0, 0.0
    both_p, both_q = nu[j, 0], nu[j, 1]
    if n_flow == 4:
        both_p, both_q = nu[j, 0] + nu[j, 3], nu[j, 1] + nu[j, 4]
    for i in range(network.first[j], network.first[j + 1]):
        copy = injection[i, U] - (given[i, OF_P] * both_p + given[i, OF_Q] * both_q) / W_INJECTION
        dual = max(dual, np.sqrt(W_INJECTION) * abs(copy - injection[i, Z]))
        injection[i, U] -= copy
        injection[i, Z] = copy
        power = max(power, abs(injection[i, X] - copy))
    for at in range(network.first_child[j], network.first_child[j + 1]):
        k = network.child[at]
        for f in range(n_flow):
            copy = state.held_u[k, f] + nu[j, INTO[f]] / W_FLOW_AT_PARENT
            dual = max(dual, np.sqrt(W_FLOW_AT_PARENT) * abs(copy - state.held_z[k, f]))
            state.held_u[k, f] -= copy
            state.held_z[k, f] = copy
            mail.copies_down[k, f] = copy - state.held_u[k, f]
            power = max(power, abs(mail.values_up[k, f] - copy))
    for f in range(n_copy):
        w = tied if f == A else weight[j, f]
        along = 0.0
        for e in range(n_equation):
            along += column[j, f, e] * nu[j, e]
        copy = wanted[f] - along / w
        dual = max(dual, np.sqrt(w) * abs(copy - z[j, f]))
        z[j, f] = copy
        if f == A:
            for tie in (A, W, W_HAT):
                u[j, tie] -= copy
            voltage = max(voltage, abs(mail.values_down[j, 0] - copy), abs(x[j, W] - copy))
            if has_hat and network.rated[j]:
                voltage = max(voltage, abs(x[j, W_HAT] - copy))
            mail.copies_up[j, 0] = copy - u[j, A]
        else:
            u[j, f] = wanted[f] - copy
            if f == A_HAT:
                voltage = max(voltage, abs(mail.values_down[j, 2] - copy))
                mail.copies_up[j, 1] = copy - u[j, f]
            elif f in (V, V_HAT):
                voltage = max(voltage, abs(x[j, f] - copy))
            else:
                power = max(power, np.sqrt(w) * abs(x[j, f] - copy))

    if j == 0:
        state.signal[0] = -rho * nu[0, 0] if np.isnan(data.root_price) else data.root_price
    else:
        # psi_j = psi_A(j) (1 + 2 r_j P_j / v_j), with the parent's signal of the iteration before.
        state.signal[j] = mail.values_down[j, 1] * (1.0 + 2.0 * network.r[j] * x[j, P] / max(x[j, V], 1e-3))
    return power, voltage, rho * dual


@compiled
def post_copies(network: Network, state: State, mail: Mail) -> None:
    """Write the letters that `propose` reads, from what the coordinators remember."""
    has_hat = mail.values_up.shape[1] == 4
    for j in range(1, len(network.parent)):
        mail.copies_up[j, 0] = state.z[j, A] - state.u[j, A]
        if has_hat:
            mail.copies_up[j, 1] = state.z[j, A_HAT] - state.u[j, A_HAT]
        for f in range(mail.copies_down.shape[1]):
            mail.copies_down[j, f] = state.held_z[j, f] - state.held_u[j, f]


@compiled
def inverses(
    network: Network, injection: Float[np.ndarray, "injection field"], n_equation: int
) -> Float[np.ndarray, "bus equation equation"]:
    """Of C C' / W, for each bus."""
    n = len(network.parent)
    inverse = np.zeros((n, n_equation, n_equation))
    column = np.zeros(ALL_EQUATIONS)
    has_hat = n_equation == ALL_EQUATIONS
    for j in range(n):
        gram = np.zeros((n_equation, n_equation))
        for f in range(ALL_COPIES if has_hat else PLAIN_COPIES):
            if j == 0:
                break
            w = network.weight[j, f]
            if f == A:
                w += network.weight[j, W] + (network.weight[j, W_HAT] if has_hat else 0.0)
            for e in range(n_equation):
                for g in range(n_equation):
                    gram[e, g] += network.column[j, f, e] * network.column[j, f, g] / w
        for i in range(network.first[j], network.first[j + 1]):
            column[0], column[1] = injection[i, OF_P], injection[i, OF_Q]
            column[3], column[4] = column[0], column[1]
            if j == 0:
                column[3:] = 0.0
            for e in range(n_equation):
                for g in range(n_equation):
                    gram[e, g] += column[e] * column[g] / W_INJECTION
        n_child = network.first_child[j + 1] - network.first_child[j]
        for e in range(n_equation):
            if e % 3 < 2 and (j > 0 or e < 3):
                gram[e, e] += n_child / W_FLOW_AT_PARENT
            if gram[e, e] == 0.0:
                gram[e, e] = 1.0  # an equation that the substation doesn't have
        inverse[j] = np.linalg.inv(gram)
    return inverse


@compiled
def row_of(data: Data, state: State, row: int) -> tuple[Data, State]:
    """One problem of many."""
    one = Data(
        data.load[row],
        data.v_source[row],
        data.v_min[row],
        data.v_max[row],
        data.l_max[row],
        data.injection[row],
        data.root_price[row],
    )
    own = State(
        state.x[row],
        state.z[row],
        state.u[row],
        state.held_z[row],
        state.held_u[row],
        state.injection[row],
        state.multiplier[row],
        state.limit[row],
        state.signal[row],
        state.rho[row],
    )
    return one, own


@compiled
def solve_rows(
    network: Network,
    data: Data,
    state: State,
    mail: Mail,
    rows: Int[np.ndarray, " chosen"],
    settings: Settings,
    found: Found,
) -> None:
    """Iterate each problem of `rows` until its residuals are small, from where its coordinators stand."""
    n = len(network.parent)
    n_equation = ALL_EQUATIONS if mail.values_up.shape[1] == 4 else PLAIN_EQUATIONS
    for row in rows:
        one, own = row_of(data, state, row)
        factors = Factors(inverses(network, one.injection, n_equation), np.zeros(N_FIELDS), np.zeros(ALL_EQUATIONS))
        post_copies(network, own, mail)
        power, voltage, dual = np.inf, np.inf, np.inf
        first = found.iterations[row]
        balance_at = first + settings.balance_every
        while found.iterations[row] < settings.most_iterations:
            for j in range(n):
                propose(j, network, one, own, mail)
            power, voltage, dual = 0.0, 0.0, 0.0
            for j in range(n):
                residual = agree(j, network, one, own, mail, factors, settings.over_relaxation)
                power, voltage = max(power, residual[0]), max(voltage, residual[1])
                dual = max(dual, residual[2])
            at = found.iterations[row]
            found.iterations[row] += 1
            if at < found.trace.shape[1]:
                exchange = 0.0
                for c in range(network.first_child[0], network.first_child[1]):
                    exchange += own.x[network.child[c], P]
                found.trace[row, at, 0], found.trace[row, at, 1] = exchange, power
                found.trace[row, at, 2], found.trace[row, at, 3] = voltage, dual
                found.trace[row, at, 4] = own.rho[0]
                found.signals[row, at] = own.signal
            if found.iterations[row] % settings.check_every == 0:
                is_near = power <= settings.power_tolerance and voltage <= settings.voltage_tolerance
                if (is_near and dual <= settings.dual_tolerance) or not np.isfinite(power + voltage + dual):
                    break
            if found.iterations[row] >= balance_at:
                balance_at += max(settings.balance_every, (found.iterations[row] - first) // settings.balance_pause)
                _balance(own, power, dual, settings.balance_band)
                post_copies(network, own, mail)
        found.residual[row, 0], found.residual[row, 1], found.residual[row, 2] = power, voltage, dual


@compiled
def _balance(state: State, primal: float, dual: float, band: float) -> None:
    """Double rho where primal residuals are much larger than dual ones, halve it where they are much smaller."""
    factor = 2.0 if primal > band * dual else 0.5 if dual > band * primal else 1.0
    if factor != 1.0:
        state.rho[0] *= factor
        for scaled in (state.u, state.held_u, state.multiplier, state.limit):
            scaled[:] /= factor
        state.injection[:, U] /= factor


@compiled
def lossless_flows(network: Network, data: Data, state: State, row: int, slack: float) -> bool:
    """Set lossless flows and voltages to those of the injections; return whether they pass a limit.

    A sweep of messages from the leaves to the substation, and one back.
    """
    one, own = row_of(data, state, row)
    n = len(network.parent)
    z, x = own.z, own.x
    is_passed = False
    own.u[:, P_HAT:W] = 0.0
    own.u[:, W_HAT] = 0.0
    own.held_u[:, 2:] = 0.0
    for j in range(n - 1, 0, -1):
        p, q = one.load[j, 0], one.load[j, 1]
        for i in range(network.first[j], network.first[j + 1]):
            p -= one.injection[i, OF_P] * own.injection[i, X]
            q -= one.injection[i, OF_Q] * own.injection[i, X]
        for at in range(network.first_child[j], network.first_child[j + 1]):
            k = network.child[at]
            p += x[k, P_HAT]
            q += x[k, Q_HAT]
        x[j, P_HAT], x[j, Q_HAT] = p, q
    x[0, V_HAT] = one.v_source
    for j in range(1, n):
        above = network.parent[j]
        x[j, V_HAT] = x[above, V_HAT] - 2.0 * (network.r[j] * x[j, P_HAT] + network.x[j] * x[j, Q_HAT])
        x[j, W_HAT] = x[above, V]
        z[j, P_HAT], z[j, Q_HAT] = x[j, P_HAT], x[j, Q_HAT]
        z[j, V_HAT], z[j, A_HAT] = x[j, V_HAT], x[above, V_HAT]
        own.held_z[j, 2], own.held_z[j, 3] = x[j, P_HAT], x[j, Q_HAT]
        is_passed |= x[j, V_HAT] > one.v_max[j] + slack
        is_passed |= network.rated[j] and x[j, P_HAT] ** 2 + x[j, Q_HAT] ** 2 > one.l_max[j] * x[above, V] + slack
    return is_passed
