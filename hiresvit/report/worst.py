"""A picture that networks answer otherwise, to look at: picture, label, answers and where they differ, in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiresvit.data.dataset import Labels
from hiresvit.files import atomic_path
from hiresvit.report.overlay import draw_legend, paint_overlay, plain

_WIDE, _NARROW = 800, 400  # pixels between which a panel is wide
_HIGH = 1200
_LETTER, _PAD = 15, 8
_PAPER, _INK = (250, 250, 250), (20, 20, 20)
_DIFFERENCES = (
    ("only the first is right", (214, 39, 40)),
    ("only the second is right", (31, 119, 180)),
    ("both wrong, otherwise", (255, 191, 0)),
)
_WRONG = ("wrong", (214, 39, 40))


@dataclass(frozen=True, eq=False)
class Shown:
    """A side's name, and its labels (H, W) of a picture."""

    name: str
    labels: NDArray[Any]


def save_maps(
    target: Path,
    headline: Sequence[str],
    picture: NDArray[np.uint8],
    *,
    truth: Shown,
    counted: NDArray[np.bool_],
    sides: Sequence[Shown],
    meaning: Labels,
) -> None:
    """Write picture, labels, the answers of one side or two, and their difference as a PNG under a headline.

    ``truth`` are the labels, which count where ``counted`` says so. The difference is between two sides, coloured by
    which of them is right, or between one and the labels; what does not count stays grey. Raises HiresvitError if it
    cannot be written.
    """
    ignored = len(meaning.names)
    drawn = replace(
        meaning, names=(*meaning.names, "ignored"), colours=np.vstack([meaning.colours, np.zeros((1, 3), np.uint8)])
    )
    size = _panel(picture)
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX if size[0] < picture.shape[1] else 0))
    panels = [("picture", Image.fromarray(small))]
    for shown in (replace(truth, labels=np.where(counted, truth.labels, ignored)), *sides):
        panels.append((shown.name, paint_overlay(small, _nearest(shown.labels, size), drawn)[0]))
    panels.append(_difference(small, truth, counted, sides, size))
    _save(target, headline, panels)


def save_picture(target: Path, headline: Sequence[str], picture: NDArray[np.uint8]) -> None:
    """Write a picture under lines that say what it is and what it was taken for. Raises as `save_maps`."""
    size = _panel(picture)
    _save(target, headline, [("", Image.fromarray(picture).resize(size, Image.Resampling.BOX))])


def _difference(
    picture: NDArray[np.uint8],
    truth: Shown,
    counted: NDArray[np.bool_],
    sides: Sequence[Shown],
    size: tuple[int, int],
) -> tuple[str, Image.Image]:
    right = [shown.labels == truth.labels for shown in sides]
    if len(sides) == 1:
        kinds, masks = [_WRONG], [~right[0]]
    else:
        kinds = list(_DIFFERENCES)
        differ = sides[0].labels != sides[1].labels
        masks = [right[0] & differ, right[1] & differ, differ & ~right[0] & ~right[1]]
    grey = picture.mean(2, keepdims=True) / 2 + 96
    painted = np.repeat(grey, 3, 2).astype(np.uint8)
    legend = []
    for (words, colour), mask in zip(kinds, masks, strict=True):
        shown = mask & counted
        painted[_nearest(shown, size)] = colour
        if counted.any():
            legend.append((f"{100 * shown.sum() / counted.sum():.2f} % {words}", np.array(colour)))
    image = Image.fromarray(painted)
    draw_legend(image, legend)
    return "difference", image


def _panel(picture: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a panel, of the picture's shape."""
    height, width = picture.shape[:2]
    scale = min(max(_NARROW / width, min(1.0, _WIDE / width)), _HIGH / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Values (H, W) at (width, height): the one at each pixel's middle."""
    rows, columns = (
        (np.arange(count) * 2 + 1) * length // (2 * count)
        for count, length in zip(size[::-1], values.shape, strict=True)
    )
    found: NDArray[Any] = values[rows[:, None], columns]
    return found


def _save(target: Path, headline: Sequence[str], panels: Sequence[tuple[str, Image.Image]]) -> None:
    """Lines of text, then panels in two columns, each under its title."""
    width, height = panels[0][1].size
    across, line = min(len(panels), 2), _LETTER + _PAD
    top, step = _PAD + line * len(headline), height + line + _PAD
    down = -(-len(panels) // across)
    sheet = Image.new("RGB", (across * (width + _PAD) + _PAD, top + down * step), _PAPER)
    letters, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTER)
    for number, text in enumerate(headline):
        letters.text((_PAD, _PAD + number * line), plain(text, 120), fill=_INK, font=font)
    for number, (title, panel) in enumerate(panels):
        left, upper = _PAD + number % across * (width + _PAD), top + number // across * step
        letters.text((left, upper), plain(title, max(width // 9, 8)), fill=_INK, font=font)
        sheet.paste(panel, (left, upper + line))
    with atomic_path(target) as temporary:
        sheet.save(temporary, "PNG", compress_level=3)
