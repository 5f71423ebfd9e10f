"""The labelled scenes: that a seed is a scene, and that labels are where things are."""

from __future__ import annotations

import numpy as np
import pytest

from hiresvit.data import drawing as street
from hiresvit.data.dataset import CITYSCAPES
from hiresvit.data.open import open_dataset
from hiresvit.data.scenes import HELD_OUT, Scenes, sample_scene
from hiresvit.errors import UsageError

NAMES = list(CITYSCAPES)


def test_a_seed_is_a_scene() -> None:
    first, again, other = (sample_scene(seed, 64, 96) for seed in (3, 3, 4))
    assert first.image.shape == (64, 96, 3)
    assert first.image.dtype == np.asarray(first.labels).dtype == np.uint8
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (np.asarray(first.labels) != other.labels).mean() > 0.02


def test_every_class_is_there_and_no_other() -> None:
    """Over some scenes each class covers at least a thousandth of the pixels: less could not be learned."""
    labels = np.concatenate([np.ravel(sample_scene(seed, 96, 96).labels) for seed in range(16)])
    shares = np.bincount(labels, minlength=256) / labels.size
    assert {NAMES[i] for i in np.flatnonzero(shares)} == set(street.CLASSES)
    assert shares[shares > 0].min() > 1e-3


def test_labels_are_where_the_things_are() -> None:
    """By daylight the sky is bluer and trees are greener than what is red; both are seen in the labels' places."""
    bluer, greener = [], []
    for seed in range(8):
        scene = sample_scene(seed, 96, 128)
        red, green, blue = scene.image.astype(float).transpose(2, 0, 1)
        bluer.append((blue - red)[scene.labels == street.SKY].mean() - (blue - red).mean())
        greener.append((2 * green - red - blue)[scene.labels == street.VEGETATION].mean())
    assert min(bluer) > 3
    assert np.median(greener) > 10


def test_labels_do_not_depend_on_the_size() -> None:
    small, large = np.asarray(sample_scene(5, 64, 64).labels), np.asarray(sample_scene(5, 256, 256).labels)
    # The same street: only pixels at borders may differ; another seed's labels agree on half of the picture.
    assert (large[2::4, 2::4] == small).mean() > 0.9


def test_mirrored_scenes_keep_their_labels() -> None:
    """Edges of the picture fall on borders of the sky more often than on those of the mirrored labels."""
    for seed in range(6):
        scene = sample_scene(seed, 96, 96)
        sky = np.asarray(scene.labels) == street.SKY
        light = scene.image.astype(float).mean(2)
        steps = np.abs(np.diff(light, axis=1))
        borders = np.diff(sky.astype(int), axis=1) != 0
        assert steps[borders].mean() > steps[borders[:, ::-1]].mean()


def test_the_data_set() -> None:
    scenes = open_dataset("scenes", imgsz=(32, 64), limit=3)
    assert (scenes.name, scenes.task, scenes.ignore, len(scenes)) == ("scenes", "segment", 255, 3)
    assert dict(scenes.classes) == {NAMES.index(name): name for name in street.CLASSES}
    assert dict(scenes.colours) == {NAMES.index(name): CITYSCAPES[name] for name in street.CLASSES}
    np.testing.assert_array_equal(scenes[2].image, sample_scene(HELD_OUT + 2, 32, 64).image)
    with pytest.raises(IndexError):
        scenes[3]


@pytest.mark.parametrize("arguments", [(-1, 8, 8), (0, 0, 8)])
def test_impossible_scenes_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="needed are"):
        sample_scene(*arguments)
    with pytest.raises(UsageError, match="0 scenes"):
        Scenes(0, (8, 8))
