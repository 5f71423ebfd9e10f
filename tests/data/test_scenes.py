from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresvit.data.image import load_image
from hiresvit.data.scenes import sample_image, sample_images
from hiresvit.errors import UsageError

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_seed_is_a_picture() -> None:
    first, again, other = sample_image(3, 48, 80), sample_image(3, 48, 80), sample_image(4, 48, 80)
    assert first.shape == (48, 80, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_sample_images_count_their_seeds() -> None:
    images = sample_images(2, (32, 64))
    np.testing.assert_array_equal(images[0], sample_image(0, 32, 64))
    np.testing.assert_array_equal(images[1], sample_image(1, 32, 64))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (64, 64)])
def test_every_size_can_be_drawn(size: tuple[int, int]) -> None:
    assert sample_image(0, *size).shape == (*size, 3)


def test_the_scene_does_not_depend_on_the_size() -> None:
    small, large = (Image.fromarray(sample_image(1, *size)) for size in ((90, 160), (360, 640)))
    shrunk = np.asarray(large.resize(small.size, Image.Resampling.BOX), int)
    # 6.5 measured: grain averages out on one side only, borders fall on other pixels. Other seeds: 17 to 20.
    assert np.abs(shrunk - np.asarray(small, int)).mean() < 10


def test_it_reads_as_a_street() -> None:
    image = sample_image(1, 180, 320).astype(int)
    sky, road = image[5, 150:170].mean(0), image[170, 170:230].mean(0)
    assert sky[2] > sky[0] + 60  # blue
    assert np.ptp(road) < 12  # grey
    assert (image[:, :, 1] > image[:, :, [0, 2]].max(2) + 20).mean() > 0.02  # trees


@pytest.mark.parametrize("arguments", [(-1, 8, 8), (0, 0, 8), (0, 8, 0)])
def test_impossible_pictures_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="needed are"):
        sample_image(*arguments)


def test_the_photo_is_what_its_recipe_draws() -> None:
    path = EXAMPLES / "street.jpg"
    photo = load_image(path).astype(int)
    recipe = (EXAMPLES / "make_photo.py").read_text()
    assert "SEED, HEIGHT, WIDTH = 1, 720, 1280" in recipe
    difference = np.abs(photo - sample_image(1, 720, 1280))
    assert difference.mean() < 4  # quality 88 drops the grain (mean 2 levels); 2.6 measured, another seed 20
    assert path.stat().st_size < 250_000
