"""Tables whose fields have names."""

from dataclasses import replace

import numpy as np
import pytest

from peergrid.grid.opf import Injections
from peergrid.grid.opf.problem import OF_INJECTIONS

BUS = np.array([0, 3, 4])


def test_fields_are_rows_of_the_table_for_one_problem_and_for_a_batch():
    for batch in ((), (2,), (2, 5)):
        table = np.random.default_rng(0).normal(size=(*batch, 8, 3))
        injections = Injections(bus=BUS, table=table)
        assert injections.table is table
        for place, name in enumerate(OF_INJECTIONS):
            np.testing.assert_array_equal(getattr(injections, name), table[..., place, :])
    injections.tan_phi[..., 1] = 7.0
    assert (table[..., OF_INJECTIONS.index("tan_phi"), 1] == 7.0).all()


def test_fields_make_a_table_and_replace_those_of_one():
    fields = {name: np.full((2, 3), float(k)) for k, name in enumerate(OF_INJECTIONS)}
    injections = Injections(bus=BUS, **fields)
    np.testing.assert_array_equal(injections.table[0, :, 0], np.arange(8))
    changed = replace(injections, p_max_kw=np.full(3, 9.0))
    np.testing.assert_array_equal(changed.table[1, :, 2], [0, 9, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(injections.p_max_kw, 1.0)


def test_a_field_that_is_missing_or_unknown_is_named():
    with pytest.raises(TypeError, match="p_min_kw"):
        Injections(bus=BUS, p_max_kw=np.zeros(3))
    with pytest.raises(TypeError, match="p_mim_kw"):
        Injections(bus=BUS, table=np.zeros((8, 3)), p_mim_kw=np.zeros(3))
