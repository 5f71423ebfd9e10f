"""LRFormer against the authors' code: outputs recorded in float64 (tests/golden/README.md), and their key names.

Both implementations round differently in the last of 16 digits and nowhere else; 1e-8 is far above that and far
below the smallest mistake that was tried (the epsilon of the keys' norm: 2e-5).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
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
from official import check_map, image, keys_of, weights_of
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.graph.attentions import count_attentions
from hiresvit.models import layers, lrformer, lrformer_block
from hiresvit.models.create import create_model, model_spec
from hiresvit.models.fold import fold
from hiresvit.models.lrformer import VARIANTS, KeyConvs, LRFormer, LRFormerConfig
from hiresvit.models.lrformer_block import Block, pooled_size
from hiresvit.models.lrformer_head import decoder_block
from hiresvit.models.zoo import MODELS
from hiresvit.spec import Task

EXACT = 1e-10  # two orders of the same sums in float64; a wrong fold is above 1e-3
KEYS = {"features": "{}_backbone.keys.json", "segment": "{}_seg.keys.json"}
slow = pytest.mark.slow


def keys(name: str, task: Task) -> list[tuple[str, list[int], str]]:
    return keys_of(KEYS[task].format(name))


@cache
def recorded() -> dict[str, NDArray[np.float64]]:
    with np.load(GOLDEN / "lrformer_t.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LRFormer-T's backbone and segmentor with the golden weights."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for task, file in KEYS.items():
        paths[task] = folder / f"{task}.pth"
        torch.save({"state_dict": weights_of(file.format("lrformer_t"))}, paths[task])
    return paths


# The first of each is done every time.
RECORDED = {16: [(320, 448), (448, 320), (512, 512)], 7: [(224, 224), (320, 448)]}
CASES = [pytest.param(m, s, marks=slow if i else []) for m in RECORDED for i, s in enumerate(RECORDED[m])]


@pytest.mark.parametrize(("pooled", "size"), CASES)
def test_features_are_the_authors(checkpoints: dict[str, Path], pooled: int, size: tuple[int, int]) -> None:
    options: dict[str, Any] = {} if pooled == 16 else {"pooled_size": pooled}  # 16 is the default
    model = create_model("lrformer_t", "features", size, weights=checkpoints["features"], **options)
    for form in (model.double(), fold(model)):
        with torch.no_grad():
            maps = form(image(size))
        for index, value in enumerate(maps):
            check_map(value, f"q{pooled}_{size[0]}x{size[1]}_f{index}", recorded())


@pytest.mark.parametrize("size", [(448, 320), *(pytest.param(s, marks=slow) for s in [(320, 448), (512, 512)])])
def test_segmentation_is_the_authors(checkpoints: dict[str, Path], size: tuple[int, int]) -> None:
    model = create_model("lrformer_t", "segment", size, weights=checkpoints["segment"])
    for form in (model.double(), fold(model)):
        with torch.no_grad():
            check_map(form(image(size)), f"seg_{size[0]}x{size[1]}_logits_f0", recorded())


def test_the_classifiers_backbone_is_the_authors(checkpoints: dict[str, Path]) -> None:
    """At 224 its pooled size is 7 without being told; there are no recorded logits."""
    path = checkpoints["features"]
    model = create_model("lrformer_t", "classify", (224, 224), weights=path, allow_missing_head=True).double()
    maps: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _head, inputs: maps.append(inputs[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        logits = model(image((224, 224)))
    check_map(maps.pop(), "q7_224x224_f3", recorded())
    assert logits.shape == (1, 1000)


EVERY: list[Any] = [(name, task) for name in VARIANTS if not name.endswith("_plus") for task in MODELS[name].imgsz]


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_key_lists(name: str, task: Task) -> None:
    """Every key of the authors' is ours with its shape, and the other way round; the classifier's are our own."""
    with torch.device("meta"):
        model = create_model(name, task)
    found = {key: list(value.shape) for key, value in model.state_dict().items()}
    head = {key: found.pop(key) for key in list(found) if task == "classify" and key.startswith("head.")}
    assert found == {key: shape for key, shape, _ in keys(name, task if task == "segment" else "features")}
    if task == "classify":
        assert {key.rpartition(".")[0] for key in head} == {"head.proj", "head.bn", "head.fc"}
        assert head["head.proj.weight"] == [1280, VARIANTS[name].channels[3], 1, 1]


# --- no recorded outputs of the other variants here, so their blocks against a slow reading of the notes ---


@dataclass(frozen=True)
class Reading:
    """What an attention is told: its pooled size and heads, and what happens where a map is small."""

    pooled: int
    heads: int
    skip: bool


def attention_by_hand(p: dict[str, Tensor], n: Tensor, reading: Reading, local: KeyConvs | None) -> Tensor:
    """LRSA on a normalised map (B, C, H, W), one head at a time, from the parameters under the checkpoint's names."""
    batch, channels, height, width = n.shape

    def pool(base: int) -> Tensor:
        if reading.skip and base >= min(height, width):
            return n
        return F.adaptive_avg_pool2d(n, pooled_size(base, (height, width)))

    def rows(x: Tensor) -> Tensor:
        return x.flatten(2).mT  # (B, tokens, C)

    def linear(name: str, x: Tensor) -> Tensor:
        name = name if f"{name}.weight" in p else f"{name}.0"
        return x @ p[f"{name}.weight"].flatten(1).mT + p[f"{name}.bias"]

    maps = [pool(int(np.floor(b * reading.pooled / 16 + 0.501))) for b in (11, 8, 6, 4)]
    if local is not None:
        s = local.state_dict()
        for i, x in enumerate(maps):
            maps[i] = x + F.conv2d(x, s[f"{i}.weight"], s[f"{i}.bias"], padding=1, groups=channels)
    tokens = torch.cat([rows(x) for x in maps], dim=1)
    tokens = F.layer_norm(tokens, (channels,), p["attn.norm.weight"], p["attn.norm.bias"], 1e-5)
    k, v = linear("attn.kv", tokens).chunk(2, dim=2)
    query, d = pool(reading.pooled), channels // reading.heads
    out = torch.empty_like(q := linear("attn.q", rows(query)))
    for head in range(reading.heads):
        part = slice(head * d, (head + 1) * d)
        out[..., part] = (q[..., part] @ k[..., part].mT / d**0.5).softmax(dim=2) @ v[..., part]
    low = linear("attn.proj", out).mT.reshape(batch, channels, *query.shape[2:])
    return F.interpolate(low, size=(height, width), mode="bilinear", align_corners=False)


def block_by_hand(block: Block, x: Tensor, reading: Reading, local: KeyConvs | None) -> Tensor:
    """One block in evaluation mode on a map (B, C, H, W)."""
    p: dict[str, Tensor] = block.state_dict()

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.running_mean" in p:
            mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
            return F.batch_norm(x, mean, variance, p[f"{name}.weight"], p[f"{name}.bias"], eps=1e-5)
        y = F.layer_norm(x.movedim(1, 3), x.shape[1:2], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)
        return y.movedim(3, 1)

    def depthwise(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], padding=1, groups=x.shape[1])

    def scale(name: str) -> Tensor:
        return p.get(name, torch.ones(x.shape[1], dtype=x.dtype))[:, None, None]

    x = norm("pre_norm", x) if "pre_norm.weight" in p else x
    x = x + depthwise("cpe", x)
    x = x + scale("layer_scale_1") * attention_by_hand(p, norm("norm1", x), reading, local)
    z = F.gelu(F.conv2d(norm("norm2", x), p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
    z = F.conv2d(z + depthwise("mlp.conv", z), p["mlp.fc2.weight"], p["mlp.fc2.bias"])
    return x + scale("layer_scale_2") * z


def ready(module: nn.Module) -> Any:
    """In float64 and evaluation mode, with norms, biases and layer scales that do something."""
    enliven(module)
    for name, value in module.state_dict().items():
        if "layer_scale" in name:
            value.copy_(0.5 + 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return module.double().eval()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def check_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


# XL at a tenth of its width: its block 7 of the third stage has a norm in front, both FFN ratios are there.
NARROW = replace(VARIANTS["lrformer_xl"], channels=(16, 24, 40, 32))
# (map, pooled size): divisible; no size divides, wide and high; queries are the map; enlarged; partly enlarged; tiny.
MAPS = [((16, 16), 8), ((10, 14), 7), ((14, 9), 6), ((7, 7), 7), ((5, 7), 16), ((12, 8), 11), ((1, 2), 2)]


@pytest.mark.parametrize("word", ["official", "skip"])
@pytest.mark.parametrize(("size", "pooled"), MAPS, ids=str)
@pytest.mark.parametrize(("stage", "heads"), [(0, 2), (1, 4), (2, 10), (3, 16)])
def test_blocks_by_hand(stage: int, heads: int, size: tuple[int, int], pooled: int, word: str) -> None:
    block = ready(lrformer.encoder_block(replace(NARROW, pooled_size=pooled, pool_small=word), stage, 7, size, 0.0))
    channels = NARROW.channels[stage]
    reading = Reading(pooled, heads, skip=word == "skip")
    check_block(block, random(2, channels, *size), reading, ready(KeyConvs(channels)))


def check_block(block: Block, x: Tensor, reading: Reading, local: KeyConvs | None) -> None:
    """A block, and its folded form, for which the shared convolutions are one."""
    with torch.no_grad():
        expected = block_by_hand(block, x, reading, local)
        check_same(block(x, local), expected)
        check_same(fold(block)(x, None if local is None else fold(nn.Sequential(local))[0]), expected)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (40, 56), (28, 28), (33, 20)], ids=str)
def test_decoder_blocks_by_hand(size: tuple[int, int], skip: bool) -> None:
    block = ready(decoder_block(32, size, skip=skip))
    check_block(block, random(1, 32, *size), Reading(32, 8, skip), None)


# --- the constants ---


@pytest.mark.parametrize(("length", "count"), [(16, 4), (32, 11), (14, 6), (7, 16), (10, 10), (5, 1), (1, 3)])
def test_averages_and_blends(length: int, count: int) -> None:
    x = random(2, 3, length)
    check_same(x @ layers.averages(length, count).mT, F.adaptive_avg_pool1d(x, count))
    check_same(x @ layers.blends(length, count).mT, F.interpolate(x, size=count, mode="linear"))


def test_whole_factors() -> None:
    """One node of ONNX where both sides grow alike, products with constants elsewhere."""
    targets = {(8, 12): 2, (4, 6): 1, (8, 18): None, (10, 15): None, (2, 3): None}
    assert {size: lrformer_block.Resize((4, 6), size).factor for size in targets} == targets


def test_pooled_sizes() -> None:
    """As the authors' code rounds: a half goes up (7 x 14.5 -> 15), in either direction."""
    found = [pooled_size(m, (80, 112)) for m in (16, 11, 8, 6, 4)]
    assert found == [(16, 22), (11, 15), (8, 11), (6, 8), (4, 6)]
    assert [pooled_size(m, (10, 14)) for m in (16, 8)] == [(16, 22), (8, 11)]
    assert pooled_size(7, (14, 29)) == (7, 15)
    assert pooled_size(7, (29, 14)) == (15, 7)
    assert pooled_size(5, (6, 6)) == (5, 5)


# --- whole models ---

TINY = LRFormerConfig((16, 32, 40, 32), (1, 1, 1, 1), 0.1, 32, pooled_size=4)


FOLDED: list[Any] = [
    ("classify", (64, 96)),
    ("segment", (64, 96)),
    ("segment", (32, 32)),
    ("features", (96, 64)),
]


@pytest.mark.parametrize(("task", "size"), FOLDED, ids=str)
def test_folding_changes_nothing(task: Task, size: tuple[int, int]) -> None:
    model = ready(create_model("lrformer_t", task, size, None if task == "features" else 7))
    with torch.no_grad():
        check_same(fold(model)(image(size)), model(image(size)))


@pytest.mark.parametrize("pool_small", ["official", "skip"])
def test_folding_of_what_xl_has(pool_small: str) -> None:
    """Its depth in the third stage, and so its norms before two blocks, at a tenth of the width."""
    depths = (1, 2, VARIANTS["lrformer_xl"].depths[2], 1)
    model = ready(LRFormer(replace(TINY, depths=depths, pool_small=pool_small), (96, 128)))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.get_submodule("block3").modules()) == 2
    with torch.no_grad():
        check_same(fold(model)(image((96, 128))), model(image((96, 128))))


@torch.no_grad()
def test_skip_matters_where_maps_are_small_and_only_there() -> None:
    """At 64x96 the third map is 4x6, to which pooling to 4 is nothing at all; the last is 2x3."""
    official, skip = (LRFormer(replace(TINY, pool_small=word), (64, 96)) for word in ("official", "skip"))
    ready(skip).load_state_dict(ready(official).state_dict())
    x = image((64, 96))
    differences = [float((a - b).abs().max()) for a, b in zip(official(x), skip(x), strict=True)]
    assert differences[:3] == [0, 0, 0]
    assert differences[3] > 1e-3


def test_folding_of_what_xl_has_stays_on_the_device() -> None:
    """As in test_fold.py, with the norms that only XL has."""
    with torch.device("meta"):
        folded = fold(LRFormer(replace(TINY, depths=(1, 1, 22, 1)), (64, 64)))
    assert {value.device.type for value in [*folded.parameters(), *folded.buffers()]} == {"meta"}


COMPUTE = {
    "Conv",
    "Gemm",
    "MatMul",
    "LayerNormalization",
    "Softmax",
    "Gelu",
    "Relu",
    "Add",
    "Mul",
    "Resize",
    "ReduceMean",
}
MOVE = {"Reshape", "Transpose", "Split", "Slice", "Concat"}


def test_exported_graph() -> None:
    """No arithmetic on shapes, nothing that a constant could do, and each attention is one."""
    spec = model_spec("lrformer_t", "segment", (64, 128), 5)
    model = fold(ready(lrformer.LRFormerSegmentor(TINY, spec.imgsz, 5)).float())
    graph, report = simplify(export_onnx(model, spec, dynamic_batch=True))
    assert report.rolled_back is None
    found = Counter(node.op_type for node in graph.graph.node)
    assert found.keys() <= COMPUTE | MOVE
    assert found["Softmax"] == count_attentions(graph) == 6
    assert found["Mul"] == 2  # the decoder's norms, on its keys
    constants = {tensor.name for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if node.op_type in MOVE - {"Concat"} | {"Resize", "ReduceMean"}:
            assert {name for name in node.input[1:] if name} <= constants, node.name


# --- arguments ---


GRID = "LRFormer takes multiples of 32 on both sides; nearest:"
TOO_LARGE = "larger than the short side of the largest map, 16 at 64x96; give 2 to 16"
REFUSED: list[Any] = [
    ({"imgsz": (500, 512)}, f"500x512: {GRID} 480x512 or 512x512"),
    ({"imgsz": 16}, f"16x16: {GRID} 32x32"),
    ({"pooled_size": 1}, "pooled_size=1: give a whole number of 2 or more"),
    ({"pooled_size": 7.0}, "pooled_size=7.0: give a whole number"),
    ({"pooled_size": True}, "pooled_size=True: give a whole number"),
    ({"imgsz": (64, 96), "pooled_size": 17}, f"pooled_size=17: {TOO_LARGE}"),
    ({"pool_small": "never"}, "pool_small='never': choose official or skip"),
    ({"drop_path": 1.0}, "drop_path=1.0: give a rate from 0 to below 1"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        model_spec("lrformer_t", "features", **options)


SIZES: list[Any] = [
    ("classify", (224, 224), 7 * 7),
    ("classify", (384, 384), 12 * 12),
    ("classify", (32, 64), 2 * 4),
    ("features", (512, 512), 16 * 16),
    ("segment", (512, 1024), 16 * 32),
]


@pytest.mark.parametrize(("task", "size", "queries"), SIZES)
def test_default_pooled_sizes(task: Task, size: tuple[int, int], queries: int) -> None:
    with torch.device("meta"):
        model = create_model("lrformer_t", task, size)
    blocks = [layer for layer in model.modules() if isinstance(layer, Block)]
    encoder = blocks[: sum(VARIANTS["lrformer_t"].depths)]
    assert {block.attn.queries for block in encoder} == {queries}
    decoder = {block.attn.queries for block in blocks[len(encoder) :]}
    assert decoder == ({32 * 64} if task == "segment" else set())
