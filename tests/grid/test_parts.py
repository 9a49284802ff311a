import math

import pytest

from peergrid.grid.errors import PeergridError, UnknownName
from peergrid.grid.parts import resolve

REGISTERED = {"square_root": "math:sqrt", "logarithm": "math:log"}


def test_an_object_is_the_part_itself():
    part = object()
    assert resolve(part, "function", REGISTERED) is part


def test_a_registered_name_stands_for_its_attribute():
    assert resolve("square_root", "function", REGISTERED) is math.sqrt


def test_module_and_attribute_name_any_part():
    assert resolve("math:cos", "function", REGISTERED) is math.cos


def test_an_unknown_name_suggests_the_nearest_and_says_what_else_will_do():
    with pytest.raises(UnknownName, match="Did you mean 'square_root'") as raised:
        resolve("square_rot", "function", REGISTERED)
    assert "no function is named 'square_rot'" in str(raised.value)
    assert "logarithm, square_root" in str(raised.value)
    assert '"module:attribute"' in str(raised.value)


def test_a_name_like_no_other_suggests_nothing():
    with pytest.raises(UnknownName) as raised:
        resolve("zzz", "function", REGISTERED)
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:part", "there is no module 'no_such_module'"),
        ("math.no_such_module:part", "there is no module 'math.no_such_module'"),
        ("math:no_such_part", "module 'math' has no 'no_such_part'"),
    ],
)
def test_a_missing_module_or_attribute_is_named(path, message):
    with pytest.raises(PeergridError, match=message):
        resolve(path, "function", REGISTERED)


@pytest.mark.parametrize("path", [":", "math:", ":sqrt", ".math:sqrt", "math.:sqrt", "math:sq rt"])
def test_what_names_neither_is_refused(path):
    with pytest.raises(PeergridError, match="is not of the form 'module:attribute'"):
        resolve(path, "function", REGISTERED)


def test_a_module_that_fails_to_import_its_own_needs_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "needs_what_is_missing.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        resolve("needs_what_is_missing:part", "function", REGISTERED)
