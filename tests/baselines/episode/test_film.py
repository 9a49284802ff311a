from __future__ import annotations

import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image

from peergrid.baselines.episode.film import write_film
from peergrid.grid.errors import CannotFilm


def squares(n: int, size=(40, 61)) -> list[np.ndarray]:
    """Pictures that differ: a black square that moves to the right."""
    frames = [np.full((*size, 3), 255, dtype=np.uint8) for _ in range(n)]
    for k, frame in enumerate(frames):
        frame[10:20, 5 * k : 5 * k + 5] = 0
    return frames


def test_a_gif_shows_every_picture_as_it_is(tmp_path):
    frames = squares(5)
    write_film(frames, tmp_path / "film.gif", per_second=4)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 5 and film.size == (61, 40) and film.info["duration"] == 250
        for k, frame in enumerate(frames):
            film.seek(k)
            np.testing.assert_allclose(np.asarray(film.convert("RGB")), frame, atol=8)


def test_a_gif_keeps_the_colours_of_a_scale_of_few_pixels(tmp_path):
    frame = np.full((300, 400, 3), 255, dtype=np.uint8)
    frame[50:250, 50:300] = np.random.default_rng(0).integers(100, 140, (200, 250, 3))  # many shades of grey
    scale = np.linspace((3, 62, 125), (139, 39, 6), 60)
    frame[5:10, :60] = scale
    write_film([frame, frame], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        kept = np.asarray(film.convert("RGB"))[7, :60]
    assert np.abs(kept - scale).max() < 20


@pytest.mark.skipif(not FFMpegWriter.isAvailable(), reason="ffmpeg is not installed")
def test_an_mp4_is_written_for_sizes_that_are_odd_too(tmp_path):
    write_film(squares(4), tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"


def test_what_cannot_be_filmed_is_said(tmp_path, monkeypatch):
    with pytest.raises(CannotFilm, match="no picture"):
        write_film([], tmp_path / "film.gif")
    with pytest.raises(CannotFilm, match="neither"):
        write_film(squares(2), tmp_path / "film.avi")
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(CannotFilm, match=r"ffmpeg, which is not installed"):
        write_film(squares(2), tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []
