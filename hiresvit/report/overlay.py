"""Labels to look at, painted over the picture with a legend, and labels for programs, as a palette PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hiresvit.data.dataset import Labels
from hiresvit.data.preprocess import check_image
from hiresvit.errors import UsageError
from hiresvit.files import atomic_path

_ROWS = 2**20  # pixels that are painted at a time
_LETTERS = 32  # of a class's name
_BRIGHT = 3 * 128  # of a colour that black letters are read on
_SMALLEST = 9  # pixels of a letter's height, which else is a fortieth of the picture's


def overlay(image: NDArray[np.uint8], labels: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mix a uint8 (H, W, 3) image half and half with the colours (K, 3) of the classes of its labels (H, W).

    Raises UsageError if the sizes differ or a label is outside 0..K-1.
    """
    check_image(image)
    if labels.shape != image.shape[:2]:
        raise UsageError(f"labels are {labels.shape}, the image is {image.shape[:2]}; they must be of one size")
    if labels.min() < 0 or labels.max() >= len(colours):
        found = f"{labels.min()} to {labels.max()}"
        raise UsageError(f"labels run from {found}; {len(colours)} classes end at {len(colours) - 1}")
    mixed = np.empty_like(image)
    rows = max(_ROWS // image.shape[1], 1)
    for band in (slice(top, top + rows) for top in range(0, len(image), rows)):
        mixed[band] = (image[band].astype(np.uint16) + colours[labels[band]] + 1) >> 1
    return mixed


def paint_overlay(
    image: NDArray[np.uint8], labels: NDArray[Any], meaning: Labels
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """The overlay with its legend, a picture of the picture's size, and `class_shares`."""
    shares = class_shares(labels, meaning.names)
    painted = Image.fromarray(overlay(image, labels, meaning.colours))
    draw_legend(painted, [(row["name"], meaning.colours[row["class"]]) for row in shares])
    return painted, shares


def save_overlay(target: Path, image: NDArray[np.uint8], labels: NDArray[Any], meaning: Labels) -> list[dict[str, Any]]:
    """Write `paint_overlay` as a PNG, and return `class_shares`."""
    painted, shares = paint_overlay(image, labels, meaning)
    with atomic_path(target) as temporary:
        painted.save(temporary, "PNG", compress_level=3)  # a third of the time, a tenth larger
    return shares


def paint_boxes(
    image: NDArray[np.uint8], found: Sequence[Mapping[str, Any]], colours: NDArray[np.uint8]
) -> Image.Image:
    """A uint8 (H, W, 3) image with boxes, each in its class's colour under its name and score, the best on top.

    ``found`` has ``class``, ``name``, ``score`` and ``box`` (left, top, right, bottom in pixels) of each, best first.
    """
    check_image(image)
    painted = Image.fromarray(np.ascontiguousarray(image))
    canvas = ImageDraw.Draw(painted)
    size = max(min(painted.size) // 40, _SMALLEST)
    font, thick = ImageFont.load_default(size), max(size // 5, 1)
    for one in reversed(found):
        colour = tuple(map(int, colours[one["class"]]))
        left, top, right, bottom = one["box"]
        canvas.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=thick)
        text = f"{plain(one['name'])} {one['score']:.2f}"
        y = max(top - size - 2, 0)
        canvas.rectangle((left, y, left + canvas.textlength(text, font) + 4, y + size + 2), fill=colour)
        canvas.text((left + 2, y), text, fill="black" if sum(colour) > _BRIGHT else "white", font=font)
    return painted


def save_labels(target: Path, labels: NDArray[Any], meaning: Labels) -> None:
    """Write labels (H, W) as a PNG of their numbers: of 8 bits with the classes' colours as its palette.

    More than 256 classes are 16-bit grey without colours. `hiresvit.data.pairs.load_labels` reads both.
    """
    if len(meaning.colours) <= 256:
        picture = Image.frombytes("P", labels.shape[::-1], labels.astype(np.uint8).tobytes())
        # of a shorter palette Pillow makes fewer bits a pixel, and some readers do not unpack them
        picture.putpalette(meaning.colours.tobytes().ljust(3 * 256, b"\0"))
    else:
        picture = Image.fromarray(labels.astype(np.uint16))
    with atomic_path(target) as temporary:
        picture.save(temporary, "PNG")


def draw_legend(picture: Image.Image, classes: Sequence[tuple[str, NDArray[np.uint8]]]) -> None:
    """Draw names with their colours into the lower left corner, as many from the first on as have place there.

    A line says how many more there are. A picture without place for one stays as it is.
    """
    size = max(min(picture.size) // 40, _SMALLEST)
    pad, line = max(size // 3, 2), size + max(size // 3, 2)
    room = int(0.9 * picture.height - 2 * pad) // line
    if room < min(len(classes), 2) or not classes:
        return
    shown = list(classes) if len(classes) <= room else list(classes)[: room - 1]
    names = [plain(name) for name, _ in shown]
    if more := len(classes) - len(shown):
        names.append(f"and {more} more")
    font = ImageFont.load_default(size)
    letters = ImageDraw.Draw(picture)
    width = 3 * pad + size + max(round(letters.textlength(name, font)) for name in names)
    height = pad + line * len(names) + pad
    if width > 0.9 * picture.width:
        return
    top = picture.height - height
    box = (0, top, width, picture.height)
    picture.paste(Image.blend(picture.crop(box), Image.new("RGB", (width, height), "black"), 0.7), box[:2])
    for number, name in enumerate(names):
        y = top + pad + number * line
        if number < len(shown):
            colour = tuple(map(int, shown[number][1]))
            letters.rectangle((pad, y, pad + size - 1, y + size - 1), fill=colour, outline="white")
        letters.text((2 * pad + size, y), name, fill="white", font=font)


def plain(text: str, most: int = _LETTERS) -> str:
    """A text as the font that comes with Pillow can write it, which has Latin letters only; cut to ``most`` of them."""
    letters = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in " ".join(text.split()))
    return letters if len(letters) <= most else f"{letters[: most - 3]}..."


def class_shares(labels: NDArray[Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The share of each class that is there, largest first: its number, its name, and 0 to 1 of the pixels."""
    counts = np.bincount(labels.ravel(), minlength=len(names))
    rows = [{"class": k, "name": names[k], "share": int(n) / labels.size} for k, n in enumerate(counts) if n]
    return sorted(rows, key=lambda row: -row["share"])
