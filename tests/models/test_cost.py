"""What a size costs, against a count that sees the tensors: every product of a pass, and every F.pad before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import build_tiny, tiny_spec
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hiresvit.models.cost import build_meta, count_work, padded_macs, peak_elements, saved_elements
from hiresvit.models.create import model_spec
from hiresvit.models.hrvit_block import Stripes
from hiresvit.models.macs import Macs, count_by_module
from hiresvit.models.mixformer import MixFormer, MixFormerClassifier, MixFormerConfig, MixFormerSegmentor
from hiresvit.models.mixformer_block import Mixing
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ModelSpec

Size = tuple[int, int]
aten = torch.ops.aten
SMALL = MixFormerConfig(16, (1, 1, 1, 1), (1, 2, 4, 8))


class Watch(TorchDispatchMode):
    """Multiply-accumulates of a pass, and those on padding, from the shapes that pass by."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.padded = Fraction(0)
        self.image = Fraction(1)
        self.mask: Tensor | None = None  # of the padded map: 1 where it is real
        self.products = 0  # of activations since it was padded

    def saw_pad(self, x: Tensor, pads: Sequence[int]) -> None:
        """HRViT pads rows of (B, H, W, 1, C), MixFormer (B, H, W, C) and the image (B, 3, H, W)."""
        if x.dim() == 4 and len(pads) == 4:
            self.image = Fraction(x[0, 0].numel(), (x.shape[2] + pads[3]) * (x.shape[3] + pads[1]))
            return
        right, below = (pads[3], pads[5]) if x.dim() == 4 else (0, pads[-1])
        self.mask = F_PAD(torch.ones(x.shape[1:3], device="cpu"), (0, right, 0, below))
        self.products = 0

    def share(self, positions: int, length: int | None) -> Fraction:
        """Of products that are real: of maps by position, of q and k in windows of ``length`` positions by pairs."""
        if self.mask is None:
            return Fraction(1)
        if length is None:
            real = int(self.mask.sum()) if positions == self.mask.numel() else positions
            return Fraction(real, positions)
        height, width = self.mask.shape
        rows, columns = (7, 7) if self.square else (length // width, width)
        windows = self.mask.reshape(height // rows, rows, width // columns, columns).transpose(1, 2).flatten(2)
        pairs = windows[..., :, None] * windows[..., None, :]
        return Fraction(int(pairs.sum()), pairs.numel())

    square = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        op = func.overloadpacket
        if op in (aten.mm, aten.addmm):
            a, b = args[-2:]
            self.add(a.shape[0] * a.shape[1] * b.shape[1], self.share(a.shape[0], None))
        elif op is aten.convolution:
            self.add(out.numel() * args[1][0].numel(), self.share(out[0, 0].numel(), None))
        elif op in (aten.bmm, aten.baddbmm):
            a, b = args[-2:]
            self.add(
                math.prod(a.shape) * b.shape[2], self.share(0, b.shape[2] if self.products % 2 == 0 else b.shape[1])
            )
            self.products += 1
            if self.products == 2 and not self.square:
                self.mask = None
        return out

    def add(self, macs: int, share: Fraction) -> None:
        self.total += macs
        self.padded += macs * (1 - share)


F_PAD = F.pad


def watched(model: nn.Module, size: Size, family: str, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Run a model without data, and see."""
    watch = Watch()
    watch.square = family == "mixformer"

    def pad(x: Tensor, pads: Sequence[int], *rest: Any, **more: Any) -> Tensor:
        if x.device.type == "meta":
            watch.saw_pad(x, pads)
        return F_PAD(x, pads, *rest, **more)

    def leave(*_: Any) -> None:
        watch.mask = None  # the head pads nothing, and its maps may be as large

    handles = [head.register_forward_pre_hook(leave) for head in [getattr(model, "decode_head", None)] if head]
    handles += [m.register_forward_pre_hook(leave) for m in model.modules() if isinstance(m, Mixing)]
    with monkeypatch.context() as patch, torch.no_grad(), watch:
        patch.setattr(F, "pad", pad)
        model(torch.empty(1, 3, *size, device="meta"))
    for handle in handles:
        handle.remove()
    return watch


def hold(build: Callable[[ModelSpec], nn.Module], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> float:
    """Both counts of a size are the same."""
    model = build_meta(build, spec)
    seen = watched(model, spec.imgsz, spec.family, monkeypatch)
    work = count_work(model, spec.imgsz)
    assert work.macs.total == seen.total
    assert work.padded == round(seen.padded * seen.image + seen.total * (1 - seen.image))
    return work.padding


def twenty(step: int) -> list[Size]:
    """Sizes of which some pad nothing and some both sides, upright, square and wide."""
    return [((1 + 3 * i % 8) * step, (1 + 5 * i % 14) * step) for i in range(20)]


def small_mixformer(spec: ModelSpec) -> nn.Module:
    if spec.task == "features":
        return MixFormer(SMALL, spec.imgsz)
    kind = MixFormerClassifier if spec.task == "classify" else MixFormerSegmentor
    return kind(SMALL, spec.imgsz, spec.num_classes)


def test_hrvit_pads_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [hold(build_tiny, tiny_spec("features", size), monkeypatch) for size in twenty(32)[:8]]
    assert hold(build_tiny, tiny_spec("segment", (224, 224)), monkeypatch) == 0.0
    assert len({round(share, 3) for share in shares}) > 4


def test_mixformer_pads_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [*twenty(32)[:6], (61, 95), (221, 224)]
    shares = [hold(small_mixformer, model_spec("mixformer_b0", "features", size), monkeypatch) for size in sizes]
    assert hold(small_mixformer, model_spec("mixformer_b0", "classify", (224, 448)), monkeypatch) == 0.0
    assert hold(small_mixformer, model_spec("mixformer_b0", "segment", (64, 96)), monkeypatch) > 0.0
    assert shares[-1] == pytest.approx(3 / 224)
    assert min(shares) > 0.0


@pytest.mark.parametrize("name", ["lrformer_t", "hiri_vit_s"])
def test_others_pad_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold(MODELS[name].build, model_spec(name, "classify", (128, 192)), monkeypatch) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_every_variant_at_twenty_sizes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = MODELS[name]
    for number, size in enumerate(twenty(entry.strides[-1])):
        task = list(entry.imgsz)[number % len(entry.imgsz)]
        hold(entry.build, model_spec(name, task, size), monkeypatch)


@pytest.mark.parametrize("window", [1, 2, 7])
@pytest.mark.parametrize("height", [1, 7, 8, 16])
def test_pairs_of_stripes_are_those_of_its_mask(height: int, window: int) -> None:
    """The mask that the network adds hides exactly the padded keys."""
    stripes = Stripes(window, height, 3, maps=2, heads=1)
    keys = 0 if stripes.mask is None else int((stripes.mask < 0).sum())
    assert stripes.all_pairs == stripes.count * stripes.length**2
    in_last = stripes.length - stripes.padding * 3
    assert stripes.real == stripes.all_pairs - 2 * (stripes.length**2 - in_last**2)
    assert keys == 2 * stripes.padding * 3


def test_counts_of_another_size_order_sizes() -> None:
    def padding(size: Size, counts: dict[str, Macs]) -> float:
        return padded_macs(build_meta(build_tiny, tiny_spec("features", size)), counts) / counts[""].total

    counts = count_by_module(build_meta(build_tiny, tiny_spec("features", (224, 256))), (224, 256))
    near = [padding(size, counts) for size in ((224, 224), (224, 256), (256, 256))]
    assert near[0] == 0.0 < near[1] < near[2]


class Chain(nn.Module):
    """3 channels to 8, an activation, 8 to 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.first(x)
        wide = torch.relu(wide)
        out: Tensor = self.last(wide)
        return out


def test_memory_by_hand() -> None:
    with torch.device("meta"):
        model = Chain().eval()
    pixels = 4 * 6
    assert peak_elements(model, (4, 6)) == (3 + 8 + 8) * pixels  # the image, and both sides of the activation
    assert saved_elements(model, (4, 6)) == (3 + 8) * pixels  # each convolution's input; the activation's is the same
    assert not model.training


def test_memory_leaves_weights_out() -> None:
    """Rearranged weights of HRViT are made in a pass; they are counted, those of the model are not."""
    spec = tiny_spec("segment", (64, 96))
    model = build_meta(build_tiny, spec)
    own = sum(value.numel() for value in model.parameters())
    small, large = (peak_elements(build_meta(build_tiny, tiny_spec("features", s)), s) for s in ((64, 64), (128, 128)))
    assert small < own
    assert 3 < large / small < 8
