"""Pictures without a download: drawn streets to compare networks on, and labelled ones to train and measure on.

Noise does not exercise a segmentation network, its feature maps stay flat; a scene with edges and objects of
many sizes does. Only polygons, ellipses, PCG64 and the four basic operations are used, so a seed gives the
same picture everywhere, up to what a Pillow version changes at a polygon's border.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data import drawing as street
from hiresvit.data.dataset import CITYSCAPES, IGNORE, Colour, Sample
from hiresvit.errors import UsageError
from hiresvit.spec import Task

# What scenes are for, by their seeds: training stays below the first of these. First seed, and how many there are.
CALIBRATION, CALIBRATION_COUNT = 500_000, 4096
SEARCH, SEARCH_COUNT = 700_000, 40
HELD_OUT, HELD_OUT_COUNT = 1_000_000, 200


def sample_images(count: int, imgsz: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Draw ``count`` streets of imgsz = (height, width), from the seeds 0, 1 and so on."""
    return [sample_image(seed, *imgsz) for seed in range(count)]


def sample_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a seed's street as uint8 (height, width, 3). Raises UsageError on a negative seed or no size."""
    rng = _generator(seed, height, width)
    pixels, _ = street.Street(rng).draw(2 * height, 2 * width)  # averaged from twice the size: smooth edges
    grain = rng.integers(-4, 5, (height, width, 1)) + rng.integers(-1, 2, (height, width, 3))
    return np.clip(np.asarray(pixels.reduce(2), np.int16) + grain, 0, 255).astype(np.uint8)


class Scenes:
    """Streets under changing light, seen by changing cameras, with a class for every pixel.

    Nine of Cityscapes' classes under Cityscapes' numbers. A picture is its seed, ``first + index``.
    """

    name = "scenes"
    task: Task = "segment"
    classes: Mapping[int, str] = {list(CITYSCAPES).index(name): name for name in street.CLASSES}
    colours: Mapping[int, Colour] = {index: CITYSCAPES[name] for index, name in classes.items()}
    ignore = IGNORE
    exact = False

    def __init__(self, count: int, imgsz: tuple[int, int], first: int = HELD_OUT) -> None:
        if count < 1:
            raise UsageError(f"{count} scenes: give at least 1")
        self.count, self.imgsz, self.first = count, imgsz, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return sample_scene(self.first + index, *self.imgsz)

    def name_of(self, index: int) -> str:
        """The picture's seed."""
        return f"scene {self.first + index}"

    def files_of(self, index: int) -> tuple[Path, ...]:
        """None: it is drawn."""
        return ()


def sample_scene(seed: int, height: int, width: int) -> Sample:
    """Draw a seed's labelled street. Raises UsageError on a negative seed or no size."""
    rng = _generator(seed, height, width)
    scene = street.Street(rng, reach=float(rng.uniform(28, 45)), girth=float(rng.uniform(2, 3.5)))
    if rng.random() < 0.7:
        scene.verge(float(rng.uniform(1.2, 2.8)))
    for side, x, z in rng.uniform((-1, 0.5, 6), (1, 8, 28), (8, 3)).tolist():
        scene.person(math.copysign(x, side), z)
    for side, z in rng.uniform((-1, 6), (1, 24), (2, 2)).tolist():  # parked
        scene.park(math.copysign(4.1, side), z)
    low, high = (1.2, -1.5, 0.55, 0.36, 0.36), (2.4, 1.5, 1.0, 0.54, 0.64)
    camera = street.Camera(*rng.uniform(low, high).tolist())
    drawn, classes = scene.draw(2 * height, 2 * width, camera)
    labels = np.asarray(classes)[1::2, 1::2]
    pixels = np.asarray(drawn.reduce(2), np.float32) * _texture(rng, labels)
    pixels = _light(rng, pixels)
    if rng.random() < 0.5:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    return Sample(np.clip(pixels, 0, 255).astype(np.uint8), np.ascontiguousarray(labels))


def _generator(seed: int, height: int, width: int) -> np.random.Generator:
    if seed < 0 or min(height, width) < 1:
        raise UsageError(f"seed {seed}, size {height}x{width}: needed are a seed from 0 and sides from 1")
    return np.random.Generator(np.random.PCG64(seed))


# How much the brightness of each class's surface varies, as a share.
_ROUGHNESS = dict(zip(street.CLASSES, (0.10, 0.14, 0.10, 0.06, 0.28, 0.22, 0.05, 0.12, 0.06), strict=True))


def _texture(rng: np.random.Generator, labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Factors (H, W, 1) around 1: noise in three sizes, as strong as each pixel's surface is rough."""
    height, width = labels.shape
    noise = np.zeros((height, width), np.float32)
    for cell in (1, 4, 16):
        coarse = rng.standard_normal((height // cell + 1, width // cell + 1)).astype(np.float32)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        noise += np.asarray(picture) / 2
    strength = np.zeros(256, np.float32)
    for kind, name in Scenes.classes.items():
        strength[kind] = _ROUGHNESS[name] * rng.uniform(0.5, 1.5)
    return (1 + strength[labels] * noise)[:, :, None]


def _light(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same scene at another hour: brightness, contrast, colour of the light, fall of light, sensor noise."""
    height, width = pixels.shape[:2]
    colour = rng.uniform(0.85, 1.15, 3) * rng.uniform(0.55, 1.15)
    contrast = rng.uniform(0.7, 1.15)
    slope = np.linspace(-1, 1, width)[None, :] * rng.uniform(-0.2, 0.2)
    slope = 1 + slope + np.linspace(-1, 1, height)[:, None] * rng.uniform(-0.15, 0.15)
    lit = (128 + contrast * (pixels - 128)) * (colour * slope[:, :, None])
    return np.asarray(lit + rng.normal(0, rng.uniform(1, 8), pixels.shape), np.float32)
