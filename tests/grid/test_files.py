"""Files are there whole or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from peergrid.grid.errors import InvalidDataset, PeergridError
from peergrid.grid.files import remove_unfinished, write_json, write_whole


def half(path):
    path.write_text("half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [PeergridError, InvalidDataset])
def test_where_writing_fails_what_was_there_is_kept_and_nothing_else(tmp_path, error):
    path = tmp_path / "new" / "known.txt"
    write_whole(path, lambda unfinished: unfinished.write_text("whole"))
    with pytest.raises(error, match=r"known.txt can't be written \(No space left on device\): make room"):
        write_whole(path, half, error)
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_a_mistake_of_the_writer_is_its_own_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="object has no place in a JSON"):
        write_json(tmp_path / "known.json", {"value": object()})
    assert not list(tmp_path.iterdir())


def test_arrays_and_their_numbers_are_written_as_json_has_them(tmp_path):
    path = tmp_path / "known.json"
    write_json(path, {"array": np.arange(3), "number": np.float64(0.1), "nested": [{"one": np.int64(1)}]})
    assert json.loads(path.read_text()) == {"array": [0, 1, 2], "number": 0.1, "nested": [{"one": 1}]}


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path):
    write_json(tmp_path / "known.json", {})
    (tmp_path / "known.json.0123abcd.partial").write_text("{")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["known.json"]
