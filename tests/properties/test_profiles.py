"""Whatever stands in a file of profiles: days within their ranges, or InvalidProfiles that says what is wrong."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peergrid.envs.common.profiles import DayShape, TableProfiles
from peergrid.grid.errors import InvalidProfiles

SHARE = settings(max_examples=settings().max_examples)
CLASSES = ("residential", "")
CELLS = st.one_of(
    st.floats(),
    st.integers(-(10**30), 10**30),
    st.text(max_size=4),
    st.none(),
    st.booleans(),
    st.sampled_from(["1e3332436601", "0,5", "nan", "-0.0", "1_0", "2025-01-01", "2500-01-01", "12:00", "٣"]),
)
KINDS = ("f4", "f8", "i4", "u1", "bool", "str", "category", "datetime64[ns]", "complex64", "Int64", "timedelta64[ns]")


def table(days=2):
    hours = 24 * days
    wave = np.linspace(0.1, 0.9, hours)
    return pd.DataFrame(
        {
            "time": pd.date_range("2025-03-01", periods=hours, freq="h").strftime("%Y-%m-%dT%H:%M"),
            "lmp_per_kwh": 0.1 + wave / 10,
            "load_pu": wave,
            "pv_pu": wave,
            "demand_residential_pu": wave,
        }
    )


@st.composite
def faulty(draw):
    """A table in which cells, columns or rows are others than they should be."""
    frame = table()
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(list(frame.columns)))
        what = draw(st.sampled_from(["cells", "kind", "loss", "new", "rows", "order", "odd column"]))
        if what == "cells":
            frame[name] = frame[name].astype(object)
            for row in draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=3)):
                frame.loc[row, name] = draw(CELLS)
        elif what == "kind":
            try:
                frame[name] = frame[name].astype(draw(st.sampled_from(KINDS)))
            except (ValueError, TypeError, np.exceptions.ComplexWarning):
                continue
        elif what == "loss":
            frame = frame.drop(columns=name)
        elif what == "new":
            other = draw(st.sampled_from(["load_pu_1", "load_forecast_pu", "pv_forecast_pu", "x", "", "time.1"]))
            frame[other] = draw(st.floats(0, 1))
        elif what == "rows":
            frame = frame.iloc[: draw(st.integers(0, len(frame)))].reset_index(drop=True)
        elif what == "order":
            frame = frame.iloc[::-1].reset_index(drop=True)
        else:
            frame[name] = pd.Series([[1.0], {"a": 1}, b"x"][draw(st.integers(0, 2))] for _ in range(len(frame)))
        if frame.empty:
            break
    return frame


def assert_days_in_range(path):
    """Every day that the file gives, or InvalidProfiles."""
    shape = DayShape(intervals=26, step_hours=1.0, bus=("0", "1"), demand_class=CLASSES)
    try:
        source = TableProfiles(path)
        days = [source.draw(shape, day, np.random.default_rng(0)) for day in range(source.n_days)]
    except InvalidProfiles as error:
        assert path.name in str(error)
        return
    assert days and source.max_load_pu <= 3 and source.max_lmp_per_kwh <= 3
    for day in days:
        for name, most in (("load_pu", 3), ("load_forecast_pu", 3), ("pv_pu", 1), ("demand_pu", 1), ("lmp_per_kwh", 3)):
            values = getattr(day, name)
            assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= most


def damaged(draw, content):
    """The bytes cut, with some of them changed, or with others put in."""
    what = draw(st.sampled_from(["cut", "changed", "put in"]))
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.integers(0, max(len(content) - 1, 0)))
        if what == "cut":
            content = content[:where]
        elif what == "changed":
            content = content[:where] + bytes([draw(st.integers(0, 255))]) + content[where + 1 :]
        else:
            content = content[:where] + draw(st.binary(max_size=6)) + content[where:]
    return content


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@SHARE
@given(faulty())
def test_tables_with_faults_are_refused_or_give_days_in_range(suffix, frame):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"profiles{suffix}"
        try:
            frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path, index=False)
        except Exception:  # what pandas itself can't write is no file of profiles
            return
        assert_days_in_range(path)


def written(suffix):
    file = io.BytesIO()
    table().to_csv(file, index=False) if suffix == ".csv" else table().to_parquet(file, index=False)
    return file.getvalue()


WRITTEN = {suffix: written(suffix) for suffix in (".csv", ".parquet")}


@pytest.mark.parametrize("suffix", WRITTEN)
@SHARE
@given(st.data())
def test_damaged_files_are_refused_or_give_days_in_range(suffix, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"profiles{suffix}"
        path.write_bytes(damaged(data.draw, WRITTEN[suffix]))
        assert_days_in_range(path)


@SHARE
@given(st.text(alphabet='0123456789-T:.,"\n\r eE+ﬀ\x00', max_size=200), st.booleans())
def test_text_of_any_kind_is_refused_or_gives_days_in_range(text, has_header):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profiles.csv"
        header = ",".join(table().columns) + "\n" if has_header else ""
        path.write_text(header + text, encoding="utf-8", newline="")
        assert_days_in_range(path)
