"""HRViT against the authors' code: outputs recorded in float64 (tests/golden/README.md), and their key names.

Both implementations round differently in the last of 16 digits and nowhere else; 1e-8 is far above that and far
below the smallest mistake that was tried (a BatchNorm epsilon: 5e-3).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_path import GOLDEN
from lively import enliven
from numpy.typing import NDArray
from official import ATOL, check_map, image, keys_of, weights_of
from torch import Tensor, nn

from hiresvit.models.create import create_model
from hiresvit.models.fold import fold
from hiresvit.models.hrvit import VARIANTS, block_of
from hiresvit.models.weights.match import LoadReport
from hiresvit.spec import Task

KEYS = {"classify": "{}.keys.json", "segment": "{}_seg.keys.json"}


def keys(name: str, task: Task) -> list[tuple[str, list[int], str]]:
    return keys_of(KEYS[task].format(name))


@cache
def recorded(task: Task) -> dict[str, NDArray[np.float64]]:
    with np.load(GOLDEN / {"classify": "hrvit_b1.npz", "segment": "hrvit_b1_seg.npz"}[task]) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """HRViT-b1 with the golden weights, as the authors' two training codes would save it."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {"classify": folder / "classify.pth.tar", "segment": folder / "segment.pth"}
    for task, path in paths.items():
        torch.save({"state_dict": weights_of(KEYS[task].format("hrvit_b1"))}, path)
    return paths


def deployments(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return model.double(), fold(model)


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (320, 448)], ids=str)
def test_classification_is_the_authors(checkpoints: dict[str, Path], size: tuple[int, int]) -> None:
    expected, prefix = recorded("classify"), f"{size[0]}x{size[1]}"
    model = create_model("hrvit_b1", "classify", size, weights=checkpoints["classify"])
    maps: list[tuple[Tensor, ...]] = []
    for form in deployments(model):
        form.head.register_forward_pre_hook(lambda _head, inputs: maps.append(inputs[0]))  # type: ignore[union-attr]
        with torch.no_grad():
            logits = form(image(size))
        np.testing.assert_allclose(logits, expected[f"{prefix}_logits"], rtol=0, atol=ATOL)
        for index, value in enumerate(maps.pop()):
            check_map(value, f"{prefix}_f{index}", expected)


@pytest.mark.parametrize("size", [(512, 512), (320, 448)], ids=str)
def test_segmentation_is_the_authors(checkpoints: dict[str, Path], size: tuple[int, int]) -> None:
    model = create_model("hrvit_b1", "segment", size, weights=checkpoints["segment"])
    for form in deployments(model):
        with torch.no_grad():
            check_map(form(image(size)), f"{size[0]}x{size[1]}_logits_f0", recorded("segment"))


def test_features_of_a_classification_checkpoint(checkpoints: dict[str, Path]) -> None:
    model = create_model("hrvit_b1", "features", (224, 224), weights=checkpoints["classify"]).double()
    with torch.no_grad():
        maps = model(image((224, 224)))
    for index, value in enumerate(maps):
        check_map(value, f"224x224_f{index}", recorded("classify"))


def test_float32_is_near(checkpoints: dict[str, Path]) -> None:
    """In float32 the authors' own code is within 5e-5 of these values; 2e-4 is the fixtures' tolerance."""
    model = create_model("hrvit_b1", "classify", (224, 224), weights=checkpoints["classify"])
    expected = recorded("classify")["224x224_logits"]
    for form in (model, fold(model)):
        with torch.no_grad():
            logits = form(image((224, 224)).float())
        assert logits.dtype == torch.float32
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)


def blank_checkpoint(path: Path, name: str, task: Task) -> int:
    """All keys with their shapes, over one zero each so that the file stays small; returns how many."""
    listed = keys(name, task)
    blank = {"float32": torch.zeros(()), "int64": torch.zeros((), dtype=torch.int64)}
    torch.save({key: blank[dtype].expand(shape) for key, shape, dtype in listed}, path)
    return len(listed)


@pytest.mark.parametrize("task", ["classify", "segment"])
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "hrvit_nano"])  # which is ours alone
def test_key_lists_load_strictly(tmp_path: Path, name: str, task: Task) -> None:
    """Every key of the authors' is ours and the other way round, for the task itself and for `features`."""
    path = tmp_path / "blank.pth"
    count = blank_checkpoint(path, name, task)
    report = report_of(create_model(name, task, weights=path))
    assert (report.loaded, report.left_out) == (count, ())

    head = {"classify": "head", "segment": "decode_head"}[task]
    body = [key for key, _, _ in keys(name, task) if not key.startswith(f"{head}.")]
    features = create_model(name, "features", weights=path)
    report = report_of(features)
    assert (report.loaded, report.left_out) == (len(body), (f"{head}.*",))
    assert not any(parameter.any() for parameter in features.parameters())  # the zeros are in


def report_of(model: Any) -> LoadReport:
    report = model.loaded
    assert isinstance(report, LoadReport)
    return report


# --- b2 and b3: no recorded outputs here, so their blocks against a slow reading of the paper and its code ---


def stripes_by_hand(q: Tensor, v: Tensor, window: int, heads: int) -> Tensor:
    """Attention inside stripes of ``window`` rows, one stripe and head at a time: (B, H, W, c) each."""
    batch, height, width, channels = q.shape
    d = channels // heads
    below = -height % window
    q, v = (F.pad(x, (0, 0, 0, 0, 0, below)) for x in (q, v))
    out = torch.empty_like(q)
    for top in range(0, height + below, window):
        real = torch.arange(window * width) // width + top < height
        for head in range(heads):
            part = (slice(None), slice(top, top + window), slice(None), slice(head * d, (head + 1) * d))
            one, other = q[part].reshape(batch, -1, d), v[part].reshape(batch, -1, d)
            scores = one @ other.mT / d**0.5 - 100.0 * ~real
            out[part] = (scores.softmax(dim=2) @ other).reshape(batch, window, width, d)
    return out[:, :height]


def block_by_hand(block: nn.Module, x: Tensor, window: int, heads: int) -> Tensor:
    """One block in evaluation mode on a map (B, H, W, C), from the parameters under the checkpoint's names."""
    p: dict[str, Tensor] = block.state_dict()
    channels = x.shape[3]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[f"{name}.weight"].mT + p[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=3, keepdim=True)
        scaled = centred / (centred.square().mean(dim=3, keepdim=True) + 1e-5).sqrt()
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def depthwise(name: str, x: Tensor) -> Tensor:
        weight = p[f"{name}.weight"]
        x = x.permute(0, 3, 1, 2)
        return F.conv2d(x, weight, p[f"{name}.bias"], padding="same", groups=x.shape[1]).permute(0, 2, 3, 1)

    q, v = linear("attn.to_qkv", norm("attn_norm", x)).chunk(2, dim=3)
    (q_across, q_down), (v_across, v_down) = q.chunk(2, dim=3), v.chunk(2, dim=3)
    across = stripes_by_hand(q_across, v_across, window, heads)
    down = stripes_by_hand(q_down.transpose(1, 2), v_down.transpose(1, 2), window, heads).transpose(1, 2)
    local = depthwise("attn.parallel_conv.1", F.hardswish(v))
    attended = linear("attn.to_out.0", F.hardswish(torch.cat([across, down], dim=3) + local))
    scale = p["attn.attn_bn.weight"] / (p["attn.attn_bn.running_var"] + 1e-5).sqrt()
    attended = (attended - p["attn.attn_bn.running_mean"]) * scale + p["attn.attn_bn.bias"]

    k = p["des.proj_left.weight"].shape[0]
    matrix = F.gelu(linear("des.proj_right", x.reshape(*x.shape[:3], k, channels // k)))
    shortcut = linear("des.proj_left", matrix.mT).mT.flatten(3)
    x = x + attended + shortcut

    small, large = linear("ffn.fc1", norm("ffn_norm", x)).chunk(2, dim=3)
    wide = torch.cat([depthwise("ffn.conv.conv_3", small), depthwise("ffn.conv.conv_5", large)], dim=3)
    return x + linear("ffn.fc2", F.gelu(wide))


# (variant, branch, its heads): the four widths of b2, and b3's with the windows of its Cityscapes model.
BRANCHES = [
    ("hrvit_b2", 0, 1),
    ("hrvit_b2", 1, 2),
    ("hrvit_b2", 2, 5),
    ("hrvit_b2", 3, 8),
    ("hrvit_b3", 0, 1),
    ("hrvit_b3", 2, 4),
    ("hrvit_b3", 3, 8),
]


@pytest.mark.parametrize("size", [(6, 9), (7, 7)], ids=str)
@pytest.mark.parametrize(("name", "branch", "heads"), BRANCHES)
def test_blocks_by_hand(name: str, branch: int, heads: int, size: tuple[int, int]) -> None:
    config = replace(VARIANTS[name], windows=(1, 2, 9, 9) if name == "hrvit_b3" else (1, 2, 7, 7))
    block = block_of(config, branch, size, 0.0).double().eval()
    enliven(block)
    channels = config.channels[branch]
    x = torch.randn(2, *size, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = block_by_hand(block, x, config.windows[branch], heads)
        for form in (block, fold(block)):
            # Two orders of the same sums in float64.
            torch.testing.assert_close(form(x.flatten(0, 2)), expected.flatten(0, 2), rtol=0, atol=1e-10)
