import pytest

from peergrid.grid import errors
from peergrid.grid.errors import InvalidQuery, PeergridError, UnknownName, raise_faults

ALL = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]


@pytest.mark.parametrize("error", ALL)
def test_one_clause_catches_every_error_of_the_package(error):
    assert issubclass(error, PeergridError)
    assert issubclass(error, ValueError)
    assert error.__doc__


def test_every_fault_is_in_one_message():
    with pytest.raises(InvalidQuery, match=r"^query: load is NaN; price is NaN$"):
        raise_faults(InvalidQuery, "query", ["load is NaN", "price is NaN"])


def test_without_a_fault_nothing_is_raised():
    raise_faults(InvalidQuery, "query", [])


def test_an_unknown_name_lists_the_known_ones_in_order():
    message = str(UnknownName("feeder", "iee33", ["ieee69", "ieee33"], hint="A folder will do."))
    assert message == "no feeder is named 'iee33'. Did you mean 'ieee33'? Known: ieee33, ieee69. A folder will do."
