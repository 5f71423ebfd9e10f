"""LRFormer+ against the authors' code (tests/golden/README.md), and a mistake in each of its pieces, which shows.

Both round differently in the last of 16 digits, 1e-13 here, and nowhere else: 1e-8. The smallest mistake below costs
a hundred thousand times that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_path import GOLDEN
from numpy.typing import NDArray
from official import ATOL, check_map, image, weights_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hiresvit.errors import UsageError
from hiresvit.models import deformable, mask2former
from hiresvit.models.create import create_model, enliven, model_spec
from hiresvit.models.deformable import DeformableAttention
from hiresvit.models.fold import fold
from hiresvit.models.macs import count_params
from hiresvit.models.mask2former import KeyMasks, QueryLayer, ResizedFeatures, SemanticInference
from hiresvit.models.query_attention import attended
from hiresvit.models.zoo import MODELS
from hiresvit.spec import QUERIES
from hiresvit.workflows.inspect import describe_model

SIZE = (128, 128)
EXACT = 1e-10  # two orders of the same sums in float64
SEEN = 1e-3  # what a mistake costs at least, of classes of order 1
PLUS = [name for name in MODELS if name.endswith("_plus")]


@cache
def recorded() -> dict[str, NDArray[np.float64]]:
    with np.load(GOLDEN / "lrformer_t_plus.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "plus.pth"
    torch.save({"state_dict": weights_of("lrformer_t_plus.keys.json")}, path)
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> Any:
    """With the recorded weights, in float64; its positions are rounded to float32, as the authors' are."""
    return create_model("lrformer_t_plus", "masks", SIZE, weights=weights).double()


@pytest.fixture(scope="module")
@torch.no_grad()
def maps(model: Any) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = model.backbone(image(SIZE))
    return out


Pieces = tuple[list[Tensor], Tensor]


@pytest.fixture(scope="module")
@torch.no_grad()
def pieces(model: Any, maps: tuple[Tensor, ...]) -> Pieces:
    """What the pixel decoder gives the queries."""
    out: Pieces = model.decode_head.pixel_decoder(maps)
    return out


@contextmanager
def hidden_bits(model: Any) -> Iterator[list[Tensor]]:
    """What is hidden from the queries, layer by layer, of what runs inside."""
    found: list[Tensor] = []
    hook = model.decode_head.key_masks.register_forward_hook(lambda _layer, _inputs, out: found.append(out))
    yield found
    hook.remove()


@torch.no_grad()
def test_the_authors_answers_and_the_bits_that_float32_flips(model: Any, weights: Path) -> None:
    """Trained and folded. Of the masks' bits fewer than 1e-5 flip in float32: the closest to zero is 5e-6 from it."""
    with hidden_bits(model) as bits:
        answers = [form(image(SIZE)) for form in (model, fold(model))]
    for classes, masks in answers:
        np.testing.assert_allclose(classes.numpy(), recorded()["128x128_cls"], rtol=0, atol=ATOL)
        check_map(masks, "128x128_mask", recorded())
        check_map(SemanticInference("exact")(classes, masks), "128x128_sem", recorded())
    single = create_model("lrformer_t_plus", "masks", SIZE, weights=weights)
    with hidden_bits(single) as rounded:
        single(image(SIZE).float())
    bits = bits[: len(rounded)]
    shares = [float(layer.double().mean()) for layer in bits]
    assert len(shares) == 9
    assert sum(share > 0.2 for share in shares) >= 5, shares  # the rest proves nothing where nothing is hidden
    flips = sum(int((a != b).sum()) for a, b in zip(bits, rounded, strict=True))
    assert flips < 1e-5 * sum(layer.numel() for layer in bits)


@pytest.mark.parametrize("size", [(96, 64), pytest.param((320, 448), marks=pytest.mark.slow)], ids=str)
@torch.no_grad()
def test_folding_changes_nothing_at_another_size(weights: Path, size: tuple[int, int]) -> None:
    model = create_model("lrformer_t_plus", "masks", size, weights=weights).double()
    for found, expected in zip(fold(model)(image(size)), model(image(size)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_features_are_resized_as_their_masks_are(factor: int) -> None:
    """The mean of the middle four of n x n pixels is what a bilinear resize to 1/n reads."""
    x = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    found = ResizedFeatures()(x)[[8, 4, 2].index(factor)]
    expected = F.interpolate(x, size=(16 // factor, 24 // factor), mode="bilinear")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


# --- a mistake in each piece ---


def decoded(model: Any, pieces: Pieces, order: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Classes (1, Q, K+1) from the pixel decoder's maps, their levels read in an order."""
    head = model.decode_head
    levels, features = pieces
    queries = head.query_feat.weight
    for i, layer in enumerate(head.transformer_decoder.layers):
        level = order[i % 3]
        hidden = head.key_masks(head.embedded(queries), features, level)
        queries = layer(queries, levels[level], head.constants(level), hidden)
    classes: Tensor = head.cls_embed(head.transformer_decoder.post_norm(queries))
    return classes[None]


def off(classes: Tensor) -> float:
    return float(np.abs(classes.numpy() - recorded()["128x128_cls"]).max())


Patch = Callable[[pytest.MonkeyPatch], None]
found_points = DeformableAttention.find_points


def point_order(patch: pytest.MonkeyPatch) -> None:
    """Offsets as (head, point, level) and not (head, level, point)."""

    def mistaken(self: DeformableAttention, rows: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        places, weights = found_points(self, rows, positions)
        swapped = places.reshape(*places.shape[:3], 4, 3, 2).transpose(3, 4)
        return swapped.flatten(3, 4), weights

    patch.setattr(DeformableAttention, "find_points", mistaken)


def x_and_y_swapped(patch: pytest.MonkeyPatch) -> None:
    def mistaken(self: DeformableAttention, rows: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        places, weights = found_points(self, rows, positions)
        return places.flip(4), weights

    patch.setattr(DeformableAttention, "find_points", mistaken)


def align_corners(patch: pytest.MonkeyPatch) -> None:
    sample: Any = F.grid_sample
    patch.setattr(F, "grid_sample", lambda *inputs, **_: sample(*inputs, align_corners=True))


def group_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deformable, "GROUPS", 16)


@pytest.mark.parametrize("mistake", [point_order, x_and_y_swapped, align_corners, group_count])
@torch.no_grad()
def test_a_mistake_in_the_pixel_decoder_shows(
    model: Any, maps: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch, mistake: Patch
) -> None:
    mistake(monkeypatch)
    assert off(decoded(model, model.decode_head.pixel_decoder(maps))) > SEEN


def self_attention_first(patch: pytest.MonkeyPatch) -> None:
    def mistaken(self: Any, queries: Tensor, tokens: Tensor, constants: Any, hidden: Tensor) -> Tensor:
        queries = self.norms[1](queries + self.self_attn(queries, constants))
        queries = self.norms[0](queries + self.cross_attn(queries, tokens, constants, hidden))
        out: Tensor = self.norms[2](queries + self.ffn(queries))
        return out

    patch.setattr(QueryLayer, "forward", mistaken)


def nothing_hidden(patch: pytest.MonkeyPatch) -> None:
    seen = KeyMasks.forward
    patch.setattr(KeyMasks, "forward", lambda *inputs: torch.zeros_like(seen(*inputs)))


@pytest.mark.parametrize("mistake", [self_attention_first, nothing_hidden])
@torch.no_grad()
def test_a_mistake_in_the_decoder_of_queries_shows(
    model: Any, pieces: Pieces, monkeypatch: pytest.MonkeyPatch, mistake: Patch
) -> None:
    mistake(monkeypatch)
    assert off(decoded(model, pieces)) > SEEN


@torch.no_grad()
def test_a_norm_left_out_shows(model: Any, pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.decode_head.transformer_decoder.post_norm, "forward", lambda queries: queries)
    assert off(decoded(model, pieces)) > SEEN


@torch.no_grad()
def test_the_order_of_levels_shows(model: Any, pieces: Pieces) -> None:
    assert off(decoded(model, pieces)) < ATOL
    assert off(decoded(model, pieces, order=(2, 1, 0))) > SEEN


def test_a_query_that_would_hide_all_hides_nothing() -> None:
    """Shifted alike, scores mean the same; but in float32 a score less 1e4 has three digits left, in FP16 none."""
    masks = KeyMasks([(1, 4), (1, 4), (1, 4)])
    masks.folded = True
    embedded = torch.eye(QUERIES, 2)[None, None]
    features = torch.tensor([[-1.0, -2.0, -1.0, -3.0], [-1.0, 0.0, 2.0, -1.0]]).reshape(1, 2, 1, 4)
    hidden = masks(embedded, features, 0)
    assert hidden[0, 0, :2].tolist() == [[False] * 4, [True, False, False, True]]
    q, k, v = (torch.randn(1, 8, 4, 32, generator=torch.Generator().manual_seed(i)) for i in range(3))
    row = hidden[:, :, :1].expand(1, 1, 4, 4)
    plain = attended(q, k, v, None)
    assert torch.equal(attended(q, k, v, row), plain)
    assert float((attended(q, k, v, ~row) - plain).abs().max()) > 1e-5


def test_there_are_two_ways_to_answer() -> None:
    with pytest.raises(UsageError, match="postprocess='Exact': choose exact or fast"):
        SemanticInference("Exact")


# --- what it costs ---

HEAD = {  # tests/golden/README.md: counted of the authors' head, 150 classes
    "lrformer_t_plus": 19_746_903,
    "lrformer_s_plus": 19_812_439,
    "lrformer_b_plus": 19_845_207,
    "lrformer_l_plus": 19_910_743,
    "lrformer_xl_plus": 20_009_047,
}
PAPER = {"t": 31, "s": 48, "b": 80, "l": 119, "xl": 205}  # million parameters in all (Table 13)


@pytest.mark.parametrize("name", PLUS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model: Any = create_model(name, imgsz=64)
    assert count_params(model.decode_head) == HEAD[name]
    assert round(count_params(model) / 1e6) == PAPER[name.split("_")[1]]
    assert describe_model(name)["tasks"][0]["paper_params"] == PAPER[name.split("_")[1]]


def test_a_class_more_is_a_row_more() -> None:
    with torch.device("meta"):
        few, more = (count_params(create_model("lrformer_t_plus", "masks", 64, k)) for k in (19, 20))
    assert more - few == 257


def test_inner_masks_cost_less_folded() -> None:
    """Nine products with 128x128 pixels become three with each of 16x16, 32x32 and 64x64: 3.36 G less at 512x512."""
    sizes, counts = [(512 // stride, 512 // stride) for stride in deformable.LEVEL_STRIDES], []
    for folded in (False, True):
        masks = KeyMasks(sizes)
        masks.folded = folded
        embedded, features = (torch.empty(shape, device="meta") for shape in ((1, 1, 100, 256), (1, 256, 128, 128)))
        resized = ResizedFeatures()(features) if folded else [features] * 3
        with FlopCounterMode(display=False) as counter:
            for i in range(mask2former.DECODER_LAYERS):
                masks(embedded, resized[i % 3], i % 3)
        counts.append(counter.get_total_flops() / 2e9)
    assert counts[0] == pytest.approx(9 * 100 * 256 * 128**2 / 1e9)
    assert counts[0] - counts[1] == pytest.approx(3.36, abs=0.005)


# --- fresh weights ---


@torch.no_grad()
def test_fresh_answers_vary() -> None:
    """Many classes, none of which has half of the image; every query hides something; the same with more threads."""
    spec = model_spec("lrformer_t_plus", "segment", SIZE)
    made, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        model: Any = create_model("lrformer_t_plus", "segment", SIZE)
        enliven(model, spec)
        made.append(model)
    torch.set_num_threads(threads)
    one, other = (model.state_dict() for model in made)
    assert all(torch.equal(one[key], other[key]) for key in one)
    with hidden_bits(model) as bits:
        single = model(x := image(SIZE).float())
    counts = single.argmax(dim=1).unique(return_counts=True)[1]
    assert len(counts) >= 10
    assert counts.max() < 0.5 * counts.sum()
    assert all(0.1 < float(layer.double().mean()) < 0.9 for layer in bits)
    # The gate of a graph in FP32 is 90 dB: it must not be missed for rounding alone.
    double = model.double()(x.double())
    assert 20 * torch.log10(double.norm() / (double - single).norm()) > 90
