"""Pictures one after another as a film: GIF by Pillow, MP4 by ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from peergrid.grid.errors import CannotFilm

DPI = 100
SHADES = 32  # of each primary colour that a GIF's choice of 256 colours looks at


def write_film(frames: Sequence[UInt8[np.ndarray, "height width 3"]], path: Path, per_second: int = 2) -> None:
    """Write pictures of one size as a film, pixel by pixel; what kind is the name's end, .gif or .mp4.

    Args:
        per_second: Pictures in a second.

    Raises:
        CannotFilm: No picture, another kind, or an MP4 without ffmpeg.
    """
    if not frames:
        raise CannotFilm(f"there is no picture to put into {path}")
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise CannotFilm(f"{path} ends neither in .gif nor in .mp4")
    writers[path.suffix](frames, path, per_second)


def _write_gif(frames: Sequence[UInt8[np.ndarray, "height width 3"]], path: Path, per_second: int) -> None:
    palette = _palette(frames)
    first, *others = (Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames)
    first.save(path, save_all=True, append_images=others, duration=1000 // per_second, loop=0)


def _palette(frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Image.Image:
    """The 256 colours of a film; a colour of few pixels counts as well, as scales have many of them."""
    step = 256 // SHADES
    counts = np.zeros(SHADES**3, dtype=int)
    for frame in frames:
        red, green, blue = (frame.reshape(-1, 3) // step).astype(int).T
        counts += np.bincount((red * SHADES + green) * SHADES + blue, minlength=SHADES**3)
    seen = np.flatnonzero(counts)
    colours = np.stack([seen // SHADES**2, seen // SHADES % SHADES, seen % SHADES], axis=-1) * 255 // (SHADES - 1)
    weighted = np.repeat(colours, np.ceil(counts[seen] ** 0.25).astype(int), axis=0).astype(np.uint8)
    return Image.fromarray(weighted[None]).quantize(256)


def _write_mp4(frames: Sequence[UInt8[np.ndarray, "height width 3"]], path: Path, per_second: int) -> None:
    if not FFMpegWriter.isAvailable():
        raise CannotFilm(f"{path} needs the program ffmpeg, which is not installed; a .gif does without")
    height, width, _ = frames[0].shape
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    image = figure.figimage(frames[0])
    # Sizes that are not even are cut by a pixel, as H.264 takes no others; yuv420p is what all players show.
    even = ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p"]
    writer = FFMpegWriter(fps=per_second, codec="libx264", extra_args=even)
    with writer.saving(figure, str(path), DPI):
        for frame in frames:
            image.set_data(frame)
            writer.grab_frame()
