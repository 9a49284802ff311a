"""Pictures one after another as a film: GIF by Pillow, MP4 by ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import UInt8
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy import ndarray

from peergrid.grid.errors import CannotFilm

DPI = 100


def write_film(frames: Sequence[UInt8[ndarray, "height width 3"]], path: Path, per_second: int = 2) -> None:
    """Write pictures of one size as a film, pixel by pixel; what kind is the name's end, .gif or .mp4.

    Args:
        per_second: Pictures in a second.

    Raises:
        CannotFilm: No picture, another kind, or an MP4 without ffmpeg.
    """
    if not frames:
        raise CannotFilm(f"there is no picture to put into {path}")
    height, width, _ = frames[0].shape
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    image = figure.figimage(frames[0])
    writer = _writer(path, per_second)
    with writer.saving(figure, str(path), DPI):
        for frame in frames:
            image.set_data(frame)
            writer.grab_frame()


def _writer(path: Path, per_second: int) -> AbstractMovieWriter:
    if path.suffix == ".gif":
        return PillowWriter(fps=per_second)
    if path.suffix != ".mp4":
        raise CannotFilm(f"{path} ends neither in .gif nor in .mp4")
    if not FFMpegWriter.isAvailable():
        raise CannotFilm(f"{path} needs the program ffmpeg, which is not installed; a .gif does without")
    # Sizes that are not even are cut by a pixel, as H.264 takes no others; yuv420p is what all players show.
    even = ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p"]
    return FFMpegWriter(fps=per_second, codec="libx264", extra_args=even)
