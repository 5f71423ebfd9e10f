"""Published data sets, small: their true folders, names and kinds of files, written by Pillow, with a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (6, 9)
FRAMES = ("frankfurt/frankfurt_000000_000294", "frankfurt/frankfurt_000001_000019", "lindau/lindau_000000_000019")


def save(path: Path, values: NDArray[Any] | Image.Image, **options: Any) -> None:
    """An array or a picture of Pillow's, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(path, **options)


def photo(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def numbers(values: Any, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Labels (H, W) that begin with these and go on with the last."""
    flat = np.full(size[0] * size[1], values[-1], np.uint8)
    flat[: len(values)] = values
    return flat.reshape(size)


def palette_png(values: NDArray[np.uint8]) -> Image.Image:
    """The same numbers as indices of colours."""
    picture = Image.fromarray(values)
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    return picture


def write_cityscapes(root: Path, split: str = "val", frames: Sequence[str] = FRAMES) -> Path:
    """A few frames of two cities with everything that gtFine_trainvaltest.zip has of each."""
    for seed, frame in enumerate(frames):
        labels = root / "gtFine" / split / f"{frame}_gtFine"
        save(root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png", photo(seed))
        save(labels.with_name(f"{labels.name}_labelIds.png"), numbers([7, 26, seed]))
        save(labels.with_name(f"{labels.name}_instanceIds.png"), numbers([7, 26, seed]).astype(np.uint16) * 1000)
        save(labels.with_name(f"{labels.name}_color.png"), Image.fromarray(photo(9)).convert("RGBA"))
        labels.with_name(f"{labels.name}_polygons.json").write_text("{}")
    (root / "license.txt").write_text("")
    return root


def write_ade20k(root: Path, split: str = "validation") -> Path:
    """Three scenes, the second in grey and of another size, as ADEChallengeData2016.zip has them."""
    folder = root / "ADEChallengeData2016"
    for number, size in ((1, SIZE), (2, (4, 5)), (3, SIZE)):
        picture = Image.fromarray(photo(number, size))
        save(folder / "images" / split / f"ADE_val_{number:08d}.jpg", picture.convert("L") if number == 2 else picture)
        save(folder / "annotations" / split / f"ADE_val_{number:08d}.png", numbers([0, 1, 150, number], size))
    (folder / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return root


def write_coco_stuff(root: Path, pictures: str = "images/val2017", labels: str = "annotations/val2017") -> Path:
    """Two of val2017's names."""
    for seed, name in enumerate(("000000000139", "000000000285")):
        save(root / pictures / f"{name}.jpg", photo(seed))
        save(root / labels / f"{name}.png", numbers([0, 181, 255, 12 + seed]))
    return root


def write_imagenet_folders(root: Path, classes: dict[str, list[str]]) -> Path:
    """Pictures of these names in the folders of their WNIDs, each of a colour that its name gives."""
    for wnid, names in classes.items():
        for name in names:
            write_jpeg(root / wnid / name)
    return root


def write_jpeg(path: Path) -> None:
    """A JPEG of 5x7 pixels, grey in a shade that its name gives."""
    save(path, np.full((5, 7, 3), sum(path.name.encode()) % 256, np.uint8), format="JPEG")
