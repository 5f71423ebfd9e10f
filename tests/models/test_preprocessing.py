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


def test_what_windows_have_goes_with_them() -> None:
    """A checkpoint's own stride is of no use to somebody who asks for another way."""
    slide = changed(HRVIT["segment"], "segment", {"resize": "slide", "stride": (8, 8), "short_side": 64})
    assert (slide.stride, slide.short_side) == ((8, 8), 64)
    assert changed(slide, "segment", {"resize": "keep"}) == HRVIT["segment"]


def test_a_stride_is_at_most_the_input() -> None:
    with pytest.raises(UsageError, match="stride 513x512: it must be at most the input's size, 512x512"):
        model_spec("hrvit_b1", "segment", preprocess={"resize": "slide", "stride": (513, 512)})


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("segment", {"size": 3}, "no size: there are resize, interpolation"),
        ("segment", {"crop_pct": 0.9}, "crop_pct is for resize=crop; here it is keep"),
        ("classify", {"divisor": 32}, "divisor is for resize=keep or letterbox; here it is crop"),
        ("segment", {"resize": "crop"}, "without a label"),
        ("classify", {"filter": "opencv"}, "only bilinear"),
        ("segment", {"stride": (8, 8)}, "stride is for resize=slide; here it is keep"),
        ("segment", {"short_side": 8}, "short_side is for resize=slide"),
        ("classify", {"resize": "slide"}, "resize=slide averages the logits of windows, for segment only"),
        ("features", {"resize": "slide"}, "the task is features"),
        ("segment", {"mean": (123.675, 116.28, 103.53)}, "pixels from 0 to 1; .* give 0.485,0.456,0.406"),
        ("segment", {"std": (58.395, 57.12, 57.375)}, "std 58.395,57.12,57.375: .* give 0.229,0.224,0.225"),
    ],
)
def test_what_cannot_be_is_refused(task: Any, changes: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        changed(HRVIT[task], task, changes)
