"""How agents plan: against another solver, against every small change, and as the paper says they should."""

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.optimize import minimize

from peergrid.envs.transactive.plans import AgentPlan, Outlook
from peergrid.envs.transactive.resources import Resources, SetPoints, operating_cost, store
from peergrid.envs.transactive.scenario import build_resources, load_scenario
from peergrid.grid.errors import PeergridError

SCENARIO = load_scenario("ieee37")
OWNED = build_resources(SCENARIO)
END = 0.5 * OWNED.storage_max_kwh
N_AGENT = len(OWNED.peak_kw)
NAMES = [f.name for f in fields(SetPoints)]
LMP = np.array(SCENARIO.profiles.lmp_shape)
LOAD = np.array(SCENARIO.profiles.load_shape)


def of_agent(resources, i):
    return Resources(**{f.name: getattr(resources, f.name)[i : i + 1] for f in fields(resources)})


def outlook(signal, *, first=0, stored=END, shifted=None, agents=slice(None)):
    intervals = len(signal)
    most = OWNED.shiftable_share * OWNED.peak_kw * LOAD[:intervals, None]
    by_agent = np.broadcast_to(signal[:, None] if signal.ndim == 1 else signal, (intervals, N_AGENT))
    return Outlook(
        first=first,
        signal_per_kwh=by_agent[:, agents].copy(),
        shift_most_kw=most[:, agents],
        stored_kwh=stored[agents].copy(),
        shifted_kwh=(np.zeros(N_AGENT) if shifted is None else shifted)[agents].copy(),
    )


def earned(resources, chosen, signal, hours=1.0):
    """What each agent earns over the day, less what its resources cost."""
    by_agent = signal[:, None] if signal.ndim == 1 else signal
    return hours * (by_agent * chosen.total_kw - operating_cost(resources, chosen)).sum(axis=0)


def energies(resources, storage_kw, stored, hours=1.0):
    """Energy in storage after every interval."""
    after = []
    for power in storage_kw:
        stored = store(resources, stored, power, hours)
        after.append(stored)
    return np.array(after)


@pytest.fixture(scope="module")
def day_plan():
    return AgentPlan(OWNED, END, 24, 1.0)


@pytest.fixture(scope="module")
def short_plan():
    return AgentPlan(OWNED, END, 6, 1.0)


@pytest.fixture(scope="module")
def day(day_plan):
    return day_plan.solve(outlook(LMP))


# It is the optimum


def by_another_solver(resources, asked, end_kwh, hours):
    """One agent's best day by SLSQP, in powers as shares of what is possible and with storage followed hour by hour."""
    n, r = len(asked.signal_per_kwh), of_one(resources)
    most = np.stack([np.full(n, r[k]) for k in ("generator_max_kw", "storage_max_kw", "storage_max_kw")])
    most = np.concatenate([asked.shift_most_kw.T, most])

    def powers(z):
        return z.reshape(4, n) * most

    def chosen(z):
        shift, generator, charge, discharge = powers(z)
        return shift, generator, discharge - charge, charge, discharge

    def loss(z):
        shift, generator, _, charge, discharge = chosen(z)
        cost = r["shift_per_kw2h"] * shift**2 + r["generator_b_per_kwh"] * generator
        cost += r["generator_a_per_kw2h"] * generator**2 + r["wear_per_kwh"] * (charge + discharge)
        cost += r["storage_per_kw2h"] * (charge**2 + discharge**2)
        return hours * (cost - asked.signal_per_kwh[:, 0] * (shift + generator + discharge - charge)).sum()

    def stored(z):
        *_, charge, discharge = chosen(z)
        flow = r["charge_efficiency"] * charge - discharge / r["discharge_efficiency"]
        return (asked.stored_kwh[0] + hours * np.cumsum(flow)) / r["storage_max_kwh"]

    constraints = [
        {"type": "eq", "fun": lambda z: stored(z)[-1] - end_kwh / r["storage_max_kwh"]},
        {"type": "eq", "fun": lambda z: (hours * chosen(z)[0].sum() + asked.shifted_kwh[0]) / most[0].max()},
        {"type": "ineq", "fun": stored},
        {"type": "ineq", "fun": lambda z: 1.0 - stored(z)},
    ]
    best = minimize(
        loss,
        np.full(4 * n, 0.1),
        method="SLSQP",
        bounds=[(-1, 1)] * n + [(0, 1)] * (3 * n),
        constraints=constraints,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert best.success, best.message
    return np.stack(chosen(best.x)[:3])


def of_one(resources):
    return {f.name: float(getattr(resources, f.name)[0]) for f in fields(resources)}


@pytest.mark.parametrize("hours", [1.0, 0.5])
def test_the_plan_is_that_of_another_solver_which_plans_for_one_agent_at_a_time(hours):
    rng, plan = np.random.default_rng(0), AgentPlan(OWNED, END, 6, hours)
    signal = rng.uniform(0.05, 0.2, (6, N_AGENT))
    asked = outlook(signal, stored=END * rng.uniform(0.6, 1.2, N_AGENT), shifted=rng.uniform(-2, 2, N_AGENT))
    together = plan.solve(asked)
    for i in (0, 3, 8):
        own, one = of_agent(OWNED, i), slice(i, i + 1)
        alone = by_another_solver(
            own,
            replace(
                asked,
                signal_per_kwh=asked.signal_per_kwh[:, one],
                shift_most_kw=asked.shift_most_kw[:, one],
                stored_kwh=asked.stored_kwh[one],
                shifted_kwh=asked.shifted_kwh[one],
            ),
            END[i],
            hours,
        )
        ours = np.stack([getattr(together, name)[:, i] for name in ("shift_kw", "generator_kw", "storage_kw")])
        np.testing.assert_allclose(ours, alone, atol=2e-4 * OWNED.peak_kw[i])


def test_agents_plan_at_once_as_each_would_alone(day):
    for i in (0, 4):
        alone = AgentPlan(of_agent(OWNED, i), END[i : i + 1], 24, 1.0).solve(outlook(LMP, agents=slice(i, i + 1)))
        for name in NAMES:
            np.testing.assert_allclose(getattr(alone, name)[:, 0], getattr(day, name)[:, i], atol=2e-3)


def test_no_small_change_that_is_possible_earns_more(day):
    rng, best = np.random.default_rng(1), earned(OWNED, day, LMP)
    most_shift = OWNED.shiftable_share * OWNED.peak_kw * LOAD[:, None]
    tried = 0
    for _ in range(300):
        by = rng.choice([0.01, 0.3]) * OWNED.peak_kw / 100.0
        a, b = rng.choice(24, 2, replace=False)
        shift, generator, storage = (getattr(day, name).copy() for name in ("shift_kw", "generator_kw", "storage_kw"))
        shift[a] += by
        shift[b] -= by
        generator[a] += rng.choice([-1, 1]) * by
        # A kWh more is drawn in one hour, and what that takes is charged in another.
        before = energies(OWNED, storage, END)[a]
        storage[a] += by
        drawn = before - energies(OWNED, storage, END)[a]
        storage[b] -= drawn / np.where(storage[b] > 0, 1 / OWNED.discharge_efficiency, OWNED.charge_efficiency)
        ends = energies(OWNED, storage, END)
        for name, powers, is_possible in (
            ("shift_kw", shift, np.abs(shift) <= most_shift),
            ("generator_kw", generator, (generator >= 0) & (generator <= OWNED.generator_max_kw)),
            ("storage_kw", storage, (np.abs(storage) <= OWNED.storage_max_kw) & (np.abs(ends[-1] - END) < 1e-9)),
        ):
            can = is_possible.all(axis=0)
            if name == "storage_kw":
                can &= (ends > 0).all(axis=0) & (ends < OWNED.storage_max_kwh).all(axis=0)
            tried += can.sum()
            assert (earned(OWNED, replace(day, **{name: powers}), LMP) <= best + 1e-6)[can].all(), (name, a, b)
    assert tried > 1000


def test_generation_is_where_marginal_cost_meets_the_signal(day):
    # Nothing ties its hours together: b + 2 a g = psi within its limits. The solver is less sure where psi is just b.
    meets = (LMP[:, None] - OWNED.generator_b_per_kwh) / (2 * OWNED.generator_a_per_kw2h)
    np.testing.assert_allclose(day.generator_kw, np.clip(meets, 0, OWNED.generator_max_kw), atol=1e-2)


# What it keeps to


def test_powers_and_energies_stay_within_their_limits_and_the_day_ends_as_it_began(day):
    most_shift = OWNED.shiftable_share * OWNED.peak_kw * LOAD[:, None]
    assert (np.abs(day.shift_kw) <= most_shift + 1e-6).all()
    assert (np.abs(day.storage_kw) <= OWNED.storage_max_kw + 1e-6).all()
    np.testing.assert_allclose(day.shift_kw.sum(axis=0), 0.0, atol=1e-5)
    # Followed without the clipping of `store`.
    flow = OWNED.charge_efficiency * np.maximum(-day.storage_kw, 0)
    flow = flow - np.maximum(day.storage_kw, 0) / OWNED.discharge_efficiency
    stored = END + np.cumsum(flow, axis=0)
    assert (stored > -1e-5).all() and (stored < OWNED.storage_max_kwh + 1e-5).all()
    np.testing.assert_allclose(stored[-1], END, atol=1e-5)


@pytest.mark.parametrize("bound", ["empty", "full"])
def test_storage_is_neither_overdrawn_nor_overfilled_however_much_it_would_pay(short_plan, bound):
    signal = np.repeat([0.3, 0.05] if bound == "empty" else [0.05, 0.3], 3)
    storage = short_plan.solve(outlook(signal)).storage_kw
    flow = OWNED.charge_efficiency * np.maximum(-storage, 0) - np.maximum(storage, 0) / OWNED.discharge_efficiency
    stored = END + np.cumsum(flow, axis=0)
    np.testing.assert_allclose(stored[2], 0.0 if bound == "empty" else OWNED.storage_max_kwh, atol=1e-4)
    assert (stored > -1e-5).all() and (stored < OWNED.storage_max_kwh + 1e-5).all()


def test_a_plan_from_the_middle_of_the_day_brings_back_what_was_moved_before(day_plan):
    rng = np.random.default_rng(2)
    shifted, stored = rng.uniform(-20, 20, N_AGENT), END * rng.uniform(0.8, 1.2, N_AGENT)
    plan = day_plan.solve(outlook(LMP, first=15, stored=stored, shifted=shifted))
    for name in NAMES:
        np.testing.assert_allclose(getattr(plan, name)[:15], 0.0, atol=1e-5)
        assert np.abs(getattr(plan, name)[15:]).max() > 1
    np.testing.assert_allclose(plan.shift_kw.sum(axis=0), -shifted, atol=1e-5)
    np.testing.assert_allclose(energies(OWNED, plan.storage_kw, stored)[-1], END, atol=1e-4)


def test_hours_that_are_over_are_not_read(day_plan):
    asked = outlook(LMP, first=10)
    asked.signal_per_kwh[:10] = asked.shift_most_kw[:10] = np.nan
    plan, other = day_plan.solve(asked), day_plan.solve(outlook(LMP, first=10))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(plan, name), getattr(other, name))


def test_a_day_goes_on_as_planned_while_nothing_new_is_heard(day_plan, day):
    stored = energies(OWNED, day.storage_kw, END)
    t = 9
    rest = day_plan.solve(outlook(LMP, first=t, stored=stored[t - 1], shifted=day.shift_kw[:t].sum(axis=0)))
    for name in NAMES:
        np.testing.assert_allclose(getattr(rest, name)[t:], getattr(day, name)[t:], atol=2e-3)


@pytest.mark.parametrize("what", ["storage", "shifting"])
def test_a_day_that_can_no_longer_end_as_it_began_is_an_error(short_plan, what):
    most = OWNED.shiftable_share * OWNED.peak_kw
    stuck = {"stored": 0 * END} if what == "storage" else {"shifted": 2 * most}
    with pytest.raises(PeergridError, match="the agents' plan was not solved"):
        short_plan.solve(outlook(LMP[:6], first=5, **stuck))
    short_plan.solve(outlook(LMP[:6], first=5))  # and the next one is solved as if nothing had been


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))], ids=["deepcopy", "copy", "pickle"]
)
def test_a_copy_plans_the_same_to_the_last_bit(short_plan, clone):
    asked = outlook(LMP[:6], first=1)
    before = short_plan.solve(asked)
    twin = clone(short_plan)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(twin.solve(asked), name), getattr(before, name))


# What the paper shows


def test_load_moves_to_cheap_hours(day):
    for i in range(N_AGENT):
        x = day.shift_kw[:, i]
        assert LMP[x > 1e-3].min() > LMP[x < -1e-3].max()  # no hour takes load that is dearer than one that puts it off
        assert np.corrcoef(x, LMP)[0, 1] > 0.8


def test_generation_moves_to_dear_hours(day):
    dearer = np.argsort(LMP)
    assert (np.diff(day.generator_kw[dearer], axis=0) >= -1e-4).all()
    assert (day.generator_kw[LMP < 0.09] < 1e-3).all()
    np.testing.assert_allclose(day.generator_kw[LMP > 0.13], np.tile(OWNED.generator_max_kw, ((LMP > 0.13).sum(), 1)))


def test_storage_charges_when_it_is_cheap_and_discharges_when_it_is_dear(day):
    for i in range(N_AGENT):
        s = day.storage_kw[:, i]
        assert s.max() > 1 and s.min() < -1
        bought = np.average(LMP, weights=np.maximum(-s, 0))
        sold = np.average(LMP, weights=np.maximum(s, 0))
        # The round trip's losses and wear are earned back.
        assert sold * 0.95 > bought / 0.95 + 2 * 0.01
        assert np.corrcoef(s, LMP)[0, 1] > 0.7


def test_a_higher_signal_in_one_hour_never_lowers_what_is_injected_there(day_plan, day):
    rng, rose = np.random.default_rng(3), 0.0
    for t in rng.choice(24, 6, replace=False):
        raised = LMP.copy()
        raised[t] *= rng.uniform(1.02, 1.2)
        more = day_plan.solve(outlook(raised))
        change = more.total_kw[t] - day.total_kw[t]
        assert (change > -1e-4).all()
        rose = max(rose, change.max())
    assert rose > 1


def test_of_two_agents_one_never_plans_for_the_other(short_plan):
    signal = np.tile(LMP[:6, None], (1, N_AGENT))
    other = signal.copy()
    other[3, 4] *= 1.5
    before, after = short_plan.solve(outlook(signal)), short_plan.solve(outlook(other))
    rest = np.arange(N_AGENT) != 4
    np.testing.assert_allclose(after.total_kw[:, rest], before.total_kw[:, rest], atol=1e-4)
    assert after.total_kw[3, 4] > before.total_kw[3, 4] + 1
