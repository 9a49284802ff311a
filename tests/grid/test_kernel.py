"""The kernel's layout: nothing stands where something else does, and answers have the names of the solution."""

from __future__ import annotations

import pytest

from peergrid.grid.opf.kernel import layout as at
from peergrid.grid.opf.kernel.lanes import SCRATCH_COLUMNS
from peergrid.grid.opf.problem import ANSWERED_OF_BUSES, ANSWERED_OF_DEVICES

OF_A_BUS = range(at.P, at.NQ + 1)
LOSSLESS_OF_A_BUS = range(at.PH, at.NHQ + 1)


def test_fields_of_a_bus_do_not_overlap():
    bounds = [range(first, first + at.BOUND) for first in (at.LOW, at.HIGH, at.RATING)]
    cones = [range(first, first + at.CONE) for first in (at.FLOW, at.FLOW_HAT)]
    taken = [field for block in (OF_A_BUS, LOSSLESS_OF_A_BUS, *bounds, *cones) for field in block]
    assert len(set(taken)) == len(taken)
    assert max(taken) < at.LOSSLESS.fields
    assert max(field for field in taken if field < at.PH) < at.PLAIN.fields <= at.PH


def test_what_is_kept_of_a_bus_is_read_under_its_own_name():
    kept = (*at.KEPT, *at.KEPT_HAT)
    for place, field in (
        (at.IN_L, at.L),
        (at.IN_LOW, at.LOW),
        (at.IN_FLOW + at.ZV, at.FLOW + at.ZV),
        (at.IN_HQ, at.HQ),
        (at.IN_FLOW_HAT + at.ZQ, at.FLOW_HAT + at.ZQ),
    ):
        assert kept[place] == field
    assert len(kept) == at.IN_DROP


@pytest.mark.parametrize("system", [at.PLAIN, at.LOSSLESS])
def test_the_matrix_of_a_line_and_its_right_hand_side_fit_into_the_scratch(system):
    assert system.size == system.x + 2 * system.y + system.v < SCRATCH_COLUMNS


def test_answers_have_the_names_of_the_solution_in_its_order():
    assert at.OF_DEVICES == ANSWERED_OF_DEVICES
    assert at.OF_BUSES == ANSWERED_OF_BUSES
    assert at.OF_BUSES[at.OF_VOLTAGE] == "voltage_pu"
    assert at.OF_BUSES[at.OF_I_MAX_HAT] == "i_max_lossless_multiplier"
    assert not any("multiplier" in name for name in at.OF_BUSES[: at.N_OF_LOSS])
