"""The boundary score against distances between all pairs of border pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hiresvit.evaluation.boundary import boundary_scores

Array = NDArray[Any]
CLASSES = 5


def border(classes: Array, counted: Array, index: int) -> Array:
    """The pixels of a class beside another class, one after the other."""
    height, width = classes.shape
    found = []
    for y, x in zip(*np.nonzero(counted & (classes == index)), strict=True):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in beside if 0 <= v < height and 0 <= u < width and counted[v, u]]
        if any(classes[place] != index for place in inside):
            found.append((y, x))
    return np.array(found, np.float64).reshape(-1, 2)


def brute_force(labels: Array, answer: Array, counted: Array) -> list[float | None]:
    """Csurka et al. 2013, from the distance of every border pixel to every other; None without a border."""
    theta = 0.0075 * np.sqrt(labels.shape[0] ** 2 + labels.shape[1] ** 2)
    scores: list[float | None] = []
    for index in range(CLASSES):
        ours, theirs = border(answer, counted, index), border(labels, counted, index)
        if not len(ours) or not len(theirs):
            scores.append(0.0 if len(ours) or len(theirs) else None)
            continue
        distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(2))
        precision, recall = (np.mean(distances.min(axis) < theta) for axis in (1, 0))
        both = precision + recall
        scores.append(float(2 * precision * recall / both) if both else 0.0)
    return scores


def drawn(seed: int) -> tuple[Array, Array, Array]:
    """Blocks, and what is left of them when they are shifted and sprinkled; 0.75 % are 1 to 4 pixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.permutation([rng.integers(10, 40), rng.integers(150, 500)]).tolist()
    blocks = rng.integers(0, CLASSES + 1, (height // 12 + 1, width // 12 + 1))
    labels = np.kron(blocks, np.ones((12, 12), int))[:height, :width]
    answer = np.roll(labels, rng.integers(-4, 5, 2).tolist(), (0, 1))
    answer = np.where(rng.random(answer.shape) < 0.003, CLASSES - 1 - seed % 2, answer)
    return labels, answer, rng.random(labels.shape) > 0.02


def as_list(scores: Array) -> list[float | None]:
    return [None if np.isnan(score) else float(score) for score in scores]


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_all_pairs_of_pixels_say(seed: int) -> None:
    labels, answer, counted = drawn(seed)
    found = as_list(boundary_scores(labels, answer, counted, CLASSES))
    expected = brute_force(labels, answer, counted)
    assert [score is None for score in found] == [score is None for score in expected]
    known = [score for score in expected if score is not None]
    assert [score for score in found if score is not None] == pytest.approx(known, abs=1e-12)


def test_of_a_diagonal_of_400_pixels_a_distance_of_3_is_too_far() -> None:
    """0.75 % is 3 pixels there: below it counts, and not at it."""
    labels = np.zeros((240, 320), int)
    labels[:, 100:] = 1
    counted = np.ones(labels.shape, bool)
    for shift, score in ((0, 1.0), (2, 1.0), (3, 0.0)):
        found = boundary_scores(labels, np.roll(labels, shift, 1) * (np.arange(320) >= 50), counted, 2)
        assert found.tolist() == [score, score]


def test_a_picture_of_one_class_has_no_border() -> None:
    flat, counted = np.zeros((9, 9), int), np.ones((9, 9), bool)
    assert np.isnan(boundary_scores(flat, flat, counted, 3)).all()
    dot = flat.copy()
    dot[4, 4] = 1
    assert boundary_scores(flat, dot, counted, 3)[:2].tolist() == [0, 0]
    assert np.isnan(boundary_scores(flat, dot, dot == 0, 3)).all(), "what is ignored makes no border"
