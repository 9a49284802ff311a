"""Whatever a scenario says: an error of ours that says what is wrong, or an environment that can be stepped."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peergrid.envs import p2p_trading_v0, transactive_v0
from peergrid.envs.common.configuration import read_file, shipped_names
from peergrid.envs.common.registered import DSOS
from peergrid.envs.p2p_trading.scenario import scenario_from_dict
from peergrid.envs.transactive.scenario import scenario_from_dict as transactive_from_dict
from peergrid.grid.dso import SOLVERS
from peergrid.grid.errors import PeergridError

SHARE = settings(max_examples=max(settings().max_examples // 2, 6))
MARKETS = {
    "p2p": (p2p_trading_v0.parallel_env, scenario_from_dict, read_file("scenario", "ieee33")),
    "transactive": (transactive_v0.parallel_env, transactive_from_dict, read_file("transactive", "ieee37")),
}
KNOWN = {*shipped_names("scenario"), *shipped_names("transactive"), *DSOS, *SOLVERS, "ansi", "rgb_array"}
every_market = pytest.mark.parametrize("market", MARKETS)
# Fields that shipped files leave at their defaults, named so that they are changed too.
MORE = {
    "p2p": (
        "scale",
        "pv_scale",
        "n_microgrids",
        "first_day",
        "n_days",
        "intervals",
        "step_hours",
        "lookahead",
        "initial_charge",
        "daily_cycle",
        "horizon",
        "cooperation",
        "seed",
        "profiles.load_shape",
        "profiles.lmp_shape",
        "profiles.sky_probability",
        "profiles.latitude_deg",
        "profiles.altitude_m",
        "profiles.utc_offset_hours",
        "profiles.lmp_level_std",
        "profiles.load_bus_std",
        "profiles.max_load_pu",
        "profiles.max_lmp_per_kwh",
        "profiles_file",
        "market.correction_rounds",
        "market.mechanism",
        "market.retail_per_kwh",
        "dso.voll_per_kwh",
        "dso.solver",
        "network.rating_factor",
        "network.rating_floor_path_to",
    ),
    "transactive": (
        "imbalance_spread",
        "intervals",
        "step_hours",
        "lookahead",
        "initial_charge",
        "seed",
        "loop.rule",
        "loop.step_share",
        "loop.bound_share",
        "loop.threshold_share",
        "loop.max_iterations",
        "dso.kappa_per_kwh",
        "dso.solver",
        "profiles.load_scale",
        "profiles.lmp_deviation_std",
        "network.v_min_pu",
    ),
}
NUMBERS = st.one_of(
    st.floats(0, 10),
    st.floats(),
    st.integers(-3, 200),
    st.sampled_from([0, 1e-300, 1e300, 1e-6, 1e6, -1.0, 10**400, 10**12, "1e-3", "5e400"]),
)
NONSENSE = st.one_of(
    NUMBERS,
    NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=4),
    st.sampled_from(["nan", "ieee33", "none", "18", ":", "a:b", "../x.csv"]),
    st.lists(NUMBERS, max_size=3),
    st.lists(st.floats(0, 1), min_size=24, max_size=24),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)


def leaves(values, where=()):
    """The way to every value of nested mappings and lists."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    inner = [found for key, value in pairs for found in leaves(value, (*where, key))]
    return [where, *inner] if where else inner


@st.composite
def changed(draw, market):
    values = copy.deepcopy(MARKETS[market][2])
    ways = leaves(values) + [tuple(path.split(".")) for path in MORE[market]]
    for way in draw(st.lists(st.sampled_from(ways), min_size=1, max_size=3)):
        inner = values
        for key in way[:-1]:
            is_there = isinstance(inner, dict) or (
                isinstance(inner, list) and isinstance(key, int) and key < len(inner)
            )
            if not is_there:
                break
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
        else:
            if isinstance(inner, dict) or (isinstance(inner, list) and way[-1] in range(len(inner))):
                inner[way[-1]] = draw(NONSENSE)
    return values


@every_market
@SHARE
@given(st.data())
def test_a_changed_scenario_is_refused_or_can_be_stepped(market, data):
    make, from_dict, _ = MARKETS[market]
    values = data.draw(changed(market))
    try:
        env = make(scenario=from_dict(values))
        env.reset(seed=data.draw(st.integers(0, 99)))
    except PeergridError as error:
        assert len(str(error)) > 10
        return
    for _ in range(2):
        if env.agents:
            rng = np.random.default_rng(0)
            actions = {a: rng.uniform(-1, 1, env.action_space(a).shape) for a in env.agents}
            observations, rewards, _, _, infos = env.step(actions)
            assert all(env.observation_space(agent).contains(seen) for agent, seen in observations.items())
            assert np.isfinite(list(rewards.values())).all()
            assert all(np.isfinite(list(info.values())).all() for info in infos.values())


@every_market
@SHARE
@given(
    st.one_of(
        # Hypothesis knows the words of our source.
        st.text(max_size=8).filter(lambda name: name not in KNOWN),
        st.sampled_from(["a:b", "ieee", "opf ", "conf/none.yaml", "."]),
    ),
    st.integers(-3, 3),
)
def test_names_that_nothing_has_and_lengths_that_make_no_sense_are_refused(market, name, cycles):
    make, _, _ = MARKETS[market]
    for arguments in ({"scenario": name}, {"dso": name or "?"}, {"render_mode": name}, {"max_cycles": min(cycles, 0)}):
        with pytest.raises(PeergridError):
            make(**arguments)
