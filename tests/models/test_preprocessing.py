"""A user's own preprocessing on top of a family's row."""

from __future__ import annotations

from typing import Any

import pytest

from hiresvit.errors import UsageError
from hiresvit.models.create import create_model, model_spec
from hiresvit.models.preprocessing import HRVIT, changed


def test_what_is_changed_is_changed_and_the_rest_is_the_familys() -> None:
    spec = model_spec("hrvit_b1", "classify", preprocess={"crop_pct": 1, "mean": [0.5, 0.5, 0.5]}).preprocess
    assert (spec.crop_pct, spec.mean, spec.interpolation) == (1, (0.5, 0.5, 0.5), "bicubic")
    assert model_spec("hrvit_b1", "classify").preprocess == HRVIT["classify"]


def test_a_model_carries_it() -> None:
    model: Any = create_model("hrvit_nano", preprocess={"resize": "keep", "filter": "opencv"})
    assert (model.spec.preprocess.resize, model.spec.preprocess.filter) == ("keep", "opencv")


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("segment", {"size": 3}, "no size: there are resize, interpolation"),
        ("segment", {"crop_pct": 0.9}, "crop_pct is for resize=crop; here it is keep"),
        ("classify", {"divisor": 32}, "divisor is for resize=keep; here it is crop"),
        ("segment", {"resize": "crop"}, "without a label"),
        ("classify", {"filter": "opencv"}, "only bilinear"),
    ],
)
def test_what_cannot_be_is_refused(task: Any, changes: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        changed(HRVIT[task], task, changes)
