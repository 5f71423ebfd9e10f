"""The pictures of an evaluation that are answered worst, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.data.dataset import Dataset, Labels, Sample
from hiresvit.evaluation.protocol import Answerer
from hiresvit.report.worst import Shown, save_maps, save_picture
from hiresvit.runtime.picture_runner import LabelMap, TopClasses

_BEST = 3  # classes of an answer that are named
Answer = LabelMap | TopClasses


def draw_worst(
    worst: Sequence[Mapping[str, Any]],
    dataset: Dataset,
    sides: Mapping[str, Answerer],
    meaning: Labels,
    start: str,
    *,
    reference: bool,
) -> list[Path]:
    """Draw pictures of `worst_pictures`, answered once more by the sides that can, as ``start`` and a number.

    With a ``reference``, which is the first of the ``sides``, it stands beside the one that differs most from it;
    without one the first side stands beside the labels alone. ``meaning`` names the answers.
    """
    paths = []
    for number, found in enumerate(worst, 1):
        sample = dataset[found["index"]]
        answers = {name: side.predict(sample.image) for name, side in sides.items()}
        first, *others = answers
        shown = [first]
        if reference and others:
            shown.append(min(others, key=lambda name: equal(answers[first], answers[name])))
        target = Path(f"{start}{number}.png")
        agrees = "" if found["agreement"] is None else f": {100 * found['agreement']:.2f} % of the answers agree"
        headline = f"{found['picture']}{agrees}"
        _draw(target, headline, sample, {name: answers[name] for name in shown}, dataset=dataset, meaning=meaning)
        paths.append(target)
    return paths


def equal(first: Answer, other: Answer) -> int:
    """How many answers for one picture are the same: pixels, or the best class."""
    if isinstance(first, TopClasses) and isinstance(other, TopClasses):
        return int(first.top[0][0] == other.top[0][0])
    assert isinstance(first, LabelMap)  # one data set has one task
    assert isinstance(other, LabelMap)
    return int(np.count_nonzero(first.labels == other.labels))


def _draw(
    target: Path, headline: str, sample: Sample, answers: Mapping[str, Answer], *, dataset: Dataset, meaning: Labels
) -> None:
    labels = np.asarray(sample.labels)
    maps = [Shown(name, answer.labels) for name, answer in answers.items() if isinstance(answer, LabelMap)]
    if maps:
        counted, truth = np.asarray(labels != dataset.ignore), Shown("labels", labels)
        save_maps(target, [headline], sample.image, truth=truth, counted=counted, sides=maps, meaning=meaning)
        return
    lines = [headline, f"label: {dataset.classes[int(labels)]}"]
    for name, answer in answers.items():
        if isinstance(answer, TopClasses):
            best = [f"{meaning.names[index]} {100 * share:.1f} %" for index, share in answer.top[:_BEST]]
            lines.append(f"{name}: {', '.join(best)}")
    save_picture(target, lines, sample.image)
