from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peergrid.grid.errors import InvalidFeeder
from peergrid.grid.feeder import Feeder


def a_feeder(parent: tuple[int, ...] = (-1, 0, 1, 1), **changes: object) -> Feeder:
    """0 - 1 - 2 with a lateral 1 - 3, unless told otherwise."""
    n = len(parent)
    is_line = np.arange(n) > 0
    values = {
        "name": "fork",
        "bus": tuple("abcdefghijklmnopqrstuvwxyz"[:n]),
        "parent": np.array(parent),
        "r_ohm": 0.1 * is_line,
        "x_ohm": 0.05 * is_line,
        "i_max_a": np.where(is_line, 100.0, np.inf),
        "base_kv": np.full(n, 0.4),
        "v_min_pu": np.full(n, 0.9),
        "v_max_pu": np.full(n, 1.1),
        "load_kw": 10.0 * is_line,
        "load_kvar": 5.0 * is_line,
        "capacitor_kvar": np.zeros(n),
        "v_source_pu": 1.0,
    }
    return Feeder(**(values | changes))


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, ...]:
    """Parents of up to 20 buses in depth-first order: each bus hangs on the way down to the bus before it."""
    parent = [-1]
    for j in range(1, draw(st.integers(1, 20))):
        way_down = [j - 1]
        while way_down[-1] > 0:
            way_down.append(parent[way_down[-1]])
        parent.append(draw(st.sampled_from(way_down)))
    return tuple(parent)


def with_entry(array: np.ndarray, index: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


@settings(max_examples=50, deadline=None)
@given(parent=trees())
def test_on_path_climbs_from_parent_to_parent(parent):
    on_path = a_feeder(parent).on_path
    for j in range(len(parent)):
        way_down = {j}
        while parent[min(way_down)] >= 0:
            way_down.add(parent[min(way_down)])
        assert set(np.flatnonzero(on_path[j])) == way_down


@settings(max_examples=50, deadline=None)
@given(parent=trees(), batch=st.sampled_from([(), (3,), (2, 3)]), seed=st.integers(0, 2**32 - 1))
def test_sums_over_the_tree_are_products_with_on_path(parent, batch, seed):
    feeder = a_feeder(parent)
    x = np.random.default_rng(seed).normal(size=(*batch, feeder.n_bus))
    np.testing.assert_allclose(feeder.downstream_sum(x), x @ feeder.on_path, atol=1e-12)
    np.testing.assert_allclose(feeder.path_sum(x), x @ feeder.on_path.T, atol=1e-12)


def test_sums_over_the_tree_take_complex_numbers():
    feeder = a_feeder()
    x = np.array([1.0, 1j, 2.0, 3.0])
    np.testing.assert_allclose(feeder.downstream_sum(x), [6 + 1j, 5 + 1j, 2, 3])
    np.testing.assert_allclose(feeder.path_sum(x), [1, 1 + 1j, 3 + 1j, 4 + 1j])


def test_subtrees_are_contiguous():
    np.testing.assert_array_equal(a_feeder().subtree_end, [4, 4, 3, 4])


def test_every_fault_is_named_at_once():
    fork = a_feeder()
    with pytest.raises(InvalidFeeder) as error:
        replace(
            fork,
            bus=("a", "b", "c", "c"),
            r_ohm=with_entry(fork.r_ohm, 1, -0.1),
            x_ohm=with_entry(fork.x_ohm, 0, 0.3),
            i_max_a=with_entry(fork.i_max_a, 2, np.nan),
            base_kv=with_entry(fork.base_kv, 1, 0.0),
            load_kw=with_entry(fork.load_kw, 2, np.nan),
            v_min_pu=with_entry(fork.v_min_pu, 3, 1.2),
            v_source_pu=0.0,
        )
    for fault in (
        "feeder 'fork': ",
        "bus names are not unique: [c]",
        "r_ohm is negative at buses [b]",
        "r_ohm and x_ohm of bus 0 are not zero",
        "i_max_a is NaN (write inf where there is no rating) at buses [c]",
        "base_kv is not positive at buses [b]",
        "load_kw is not finite at buses [c]",
        "v_min_pu is above v_max_pu at buses [c]",
        "v_source_pu is 0.0",
    ):
        assert fault in str(error.value)


@pytest.mark.parametrize(
    ("parent", "fault"),
    [
        ((0, 0, 1, 1), "bus 0 must be the substation"),
        ((-1, 2, 1, 1), "parent is not listed before its child at buses [b]"),
        ((-1, 0, 2, 1), "parent is not listed before its child at buses [c]"),
        ((-1, 0, -1, 1), "parent is not listed before its child at buses [c]"),
        ((-1, 0, 0, 1), "not in depth-first order"),
    ],
    ids=["no substation", "child first", "its own parent", "two roots", "breadth first"],
)
def test_an_order_that_is_no_tree_walk_is_refused(parent, fault):
    with pytest.raises(InvalidFeeder) as error:
        a_feeder(parent)
    assert fault in str(error.value)


def test_arrays_of_another_length_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for users, whom no shape check protects
    with pytest.raises(InvalidFeeder, match=r"load_kw has shape \(3,\), not \(4,\)"):
        a_feeder(load_kw=np.zeros(3))


def test_a_line_without_impedance_is_refused():
    with pytest.raises(InvalidFeeder, match=r"merge the two buses\) at buses \[b, c, d\]"):
        a_feeder(r_ohm=np.zeros(4), x_ohm=np.zeros(4))


def test_a_long_list_of_buses_is_cut_short():
    n = 20
    with pytest.raises(InvalidFeeder, match=r"\[a, .*, l, and 8 more\]"):
        a_feeder(tuple(range(-1, n - 1)), load_kw=np.full(n, np.nan))


def test_an_unknown_bus_is_named_with_the_known_ones():
    assert a_feeder().index("c") == 2
    with pytest.raises(InvalidFeeder, match=r"feeder 'fork' has no bus 'z'; its buses: \[a, b, c, d\]"):
        a_feeder().index("z")


def test_arrays_are_read_only():
    feeder = a_feeder()
    names = [f.name for f in fields(Feeder)] + ["subtree_end", "on_path", "r_pu", "x_pu", "base_a"]
    arrays = [getattr(feeder, name) for name in names if isinstance(getattr(feeder, name), np.ndarray)]
    assert len(arrays) == 15
    assert not any(array.flags.writeable for array in arrays)


def test_a_feeder_keeps_its_own_copy_of_the_arrays():
    load_kw = np.array([0.0, 1.0, 2.0, 3.0])
    feeder = a_feeder(load_kw=load_kw)
    load_kw[1] = 99.0
    np.testing.assert_array_equal(feeder.load_kw, [0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("duplicate", [lambda f: pickle.loads(pickle.dumps(f)), copy.deepcopy, copy.copy])
def test_a_pickled_or_copied_feeder_is_the_same_and_still_read_only(duplicate):
    feeder = a_feeder()
    assert feeder.on_path.any()
    twin = duplicate(feeder)
    assert "on_path" not in vars(twin)
    for field in fields(Feeder):
        value = getattr(twin, field.name)
        np.testing.assert_array_equal(value, getattr(feeder, field.name), strict=True)
        assert not isinstance(value, np.ndarray) or not value.flags.writeable


def test_per_unit_impedance_matches_the_hand_calculation():
    # Loads of 30 kW and 40 kvar make a base of 50 kVA; at 0.4 kV that is 1000 * 0.4² / 50 = 3.2 ohm.
    feeder = a_feeder(load_kw=np.array([0.0, 10.0, 10.0, 10.0]), load_kvar=np.array([0.0, 0.0, 0.0, 40.0]))
    assert feeder.base_kva == pytest.approx(50.0)
    np.testing.assert_allclose(feeder.r_pu[1:], 0.1 / 3.2)
    np.testing.assert_allclose(feeder.base_a, 50.0 / (np.sqrt(3.0) * 0.4))


def test_a_feeder_without_load_has_a_base_all_the_same():
    assert a_feeder(load_kw=np.zeros(4), load_kvar=np.zeros(4)).base_kva == 1000.0
    assert a_feeder(load_kw=np.full(4, 5e-324), load_kvar=np.zeros(4)).base_kva == 1000.0


def test_bus_names_that_no_table_could_hold_are_refused():
    with pytest.raises(InvalidFeeder, match=r"control characters: \['c\\r'\]"):
        a_feeder(bus=("a", "b", "c\r", "d"))
