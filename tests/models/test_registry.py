"""`create_model`: every model for every task, and everything it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from every import every, firsts, small_size
from lively import enliven
from torch import Tensor, nn

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.create import (
    build_empty,
    build_model,
    convert_weights,
    create_model,
    model_spec,
    perturb_zeros,
)
from hiresvit.models.macs import count_params
from hiresvit.models.weights.file import save_safetensors
from hiresvit.models.zoo import MODELS, list_models, siblings
from hiresvit.spec import Task

# HRViT's maps are 4x6 and 2x3 where the windows are 7.
SIZE = (64, 96)
CLASSES = {"classify": 5, "segment": 5, "features": None, "masks": 5, "detect": 5}
# Channels of the maps of `features`, from the papers' tables of configurations.
WIDTHS = {
    "hrvit_b1": (32, 64, 128, 256),
    "hrvit_b2": (48, 96, 240, 384),
    "hrvit_b3": (64, 128, 256, 512),
    "hrvit_nano": (32, 64, 96, 128),
    "lrformer_t": (48, 96, 240, 384),
    "lrformer_s": (64, 128, 320, 512),
    "lrformer_b": (80, 160, 400, 512),
    "lrformer_l": (96, 192, 480, 640),
    "lrformer_xl": (128, 256, 640, 768),
    "mixformer_b0": (24, 48, 96, 192),
    "mixformer_b1": (32, 64, 128, 256),
    "mixformer_b2": (32, 64, 128, 256),
    "mixformer_b3": (48, 96, 192, 384),
    "mixformer_b4": (64, 128, 256, 512),
    "mixformer_b5": (96, 192, 384, 768),
    "mixformer_b6": (96, 192, 384, 768),
    "hiri_vit_s": (64, 128, 320, 512),  # of stages 2 to 5
    "hiri_vit_b": (96, 192, 320, 640),
    "hiri_vit_l": (160, 224, 448, 640),
}
WIDTHS |= {f"{name}_plus": widths for name, widths in WIDTHS.items() if name.startswith("lrformer")}
HEAD_STRIDE = {"hrvit": 4, "lrformer": 8, "mixformer": 4, "hiri_vit": 8}
each_first = pytest.mark.parametrize("name", list(firsts().values()))


FIRST_TASKS = [(name, task) for name in firsts().values() for task in MODELS[name].imgsz]


def small(name: str, task: Task, size: tuple[int, int] | None = None, **options: Any) -> nn.Module:
    return create_model(name, task, size or small_size(name), CLASSES[task], **options)


def image(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def outputs(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = model(x)
    return result if isinstance(result, tuple) else (result,)


def map_shape(name: str, channels: int, stride: int) -> tuple[int, int, int, int]:
    height, width = small_size(name)
    return (2, channels, height // stride, width // stride)


@pytest.mark.parametrize(("name", "task"), every())
def test_outputs(name: str, task: Task) -> None:
    model = small(name, task)
    assert not model.training
    entry = MODELS[name]
    maps = [map_shape(name, c, s) for c, s in zip(WIDTHS[name], entry.strides, strict=True)]
    pixels = map_shape(name, 5, 1 if name.endswith("_plus") else HEAD_STRIDE[entry.family])
    masks: list[tuple[int, ...]] = [(2, 100, 6), map_shape(name, 100, 4)]
    sides = [[-(-side // s) for side in small_size(name)] for s in (entry.anchors.strides if entry.anchors else ())]
    boxes: list[tuple[int, ...]] = [(2, 9 * each, *size) for each in (5, 4) for size in sides]
    expected = {"classify": [(2, 5)], "segment": [pixels], "features": maps, "masks": masks, "detect": boxes}[task]
    size = small_size(name)
    single = outputs(model, image(2, size))
    assert [tuple(x.shape) for x in single] == expected
    assert {x.dtype for x in single} == {torch.float32}

    double = outputs(model.double(), image(2, size).double())
    assert {x.dtype for x in double} == {torch.float64}
    for one, two in zip(single, double, strict=True):
        # Rounding of float32 through some 20 blocks, on values of order 1.
        torch.testing.assert_close(one.double(), two, rtol=0, atol=1e-4)


@each_first
def test_images_of_a_batch_are_independent(name: str) -> None:
    model = small(name, "features").double()
    enliven(model)
    batch = image(3, small_size(name)).double()
    for whole, alone in zip(outputs(model, batch), outputs(model, batch[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=1e-12)  # float64, sums in another order


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].family == "hrvit"])
def test_windows(name: str) -> None:
    """Weights do not depend on the windows, results do; 1-2-7-7 are the default."""
    results = []
    for options in ({}, {"windows": [1, 2, 7, 7]}, {"windows": (1, 2, 2, 3)}):
        model = small(name, "features", **options)
        perturb_zeros(model)
        results.append((model.state_dict(), outputs(model, image())[0]))
    (state, default), (_, same), (other_state, other) = results
    assert all(torch.equal(state[key], other_state[key]) for key in state.keys() | other_state.keys())
    assert torch.equal(default, same)
    assert not torch.allclose(default, other, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": (1, 2, 7)}, r"windows=\(1, 2, 7\): give four whole numbers"),
        ({"windows": (1, 2, 0, 7)}, "give four whole numbers of 1 or more"),
        ({"windows": (1, 2, 7.0, 7)}, "give four whole numbers"),
        ({"drop_path": 1.0}, "drop_path=1.0: give a rate from 0 to below 1"),
        ({"drop_path": -0.1}, "give a rate"),
        ({"window": 7}, "hrvit_b1 has no argument window: it takes windows, head, drop_path"),
        ({"depth": 7, "width": 2}, "no argument depth, width"),
        ({"head": "unet"}, "head='unet': give segformer or upernet"),
        ({"head": "upernet", "task": "classify"}, "head='upernet' serves segment; the task is classify"),
        ({"pooled_size": 7}, "hrvit_b1 has no argument pooled_size"),
        ({"allow_missing_head": True}, "--allow-missing head is about a checkpoint"),
        ({"num_classes": 0}, "num_classes=0: give a whole number of 1 or more"),
        ({"task": "depth"}, "unknown task 'depth': classify, segment, features"),
        ({"task": "features", "num_classes": 19}, "features have no classes"),
        ({"imgsz": (64, 64, 64)}, r"give \(height, width\)"),
        ({"imgsz": ("64", "64")}, r"give \(height, width\)"),
        ({"imgsz": (100, 64)}, "100x64: HRViT takes multiples of 32 on both sides; nearest: 96x64 or 128x64"),
        ({"imgsz": 300}, "nearest: 288x288 or 320x320"),
        ({"imgsz": (0, 16)}, "nearest: 32x32$"),
        ({"imgsz": (-64, 64)}, "nearest: 32x64$"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model("hrvit_b1", **options)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hrvit_b4", "did you mean hrvit_b"),
        ("HRViT-b2", "did you mean hrvit_b2"),
        ("resnet50", "hiresvit list"),
    ],
)
def test_unknown_model(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(hint)) as caught:
        create_model(name)
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)


def test_defaults() -> None:
    assert list_models() == list(MODELS)
    for name, entry in MODELS.items():
        spec, plus = model_spec(name), name.endswith("_plus")
        assert (spec.task, spec.imgsz, spec.strides) == (entry.task, entry.imgsz[entry.task], entry.strides)
        assert entry.imgsz.keys() == entry.numbers.keys() >= {entry.task, "masks" if plus else "features"}
        for task, size in entry.imgsz.items():
            spec = model_spec(name, task)
            assert spec.imgsz == size
            usual = {"segment": 150 if plus else 19, "masks": 150, "classify": 1000, "features": 0, "detect": 80}
            assert spec.num_classes == usual[task]
    assert model_spec("hrvit_b1", imgsz=64).imgsz == (64, 64)


def test_a_task_that_a_variant_does_not_serve() -> None:
    said = "lrformer_xl does not serve segment, only classify and features: lrformer_xl_plus does"
    with pytest.raises(UsageError, match=said):
        create_model("lrformer_xl", "segment")
    with pytest.raises(UsageError, match=r"lrformer_s_plus does not serve features, .*: lrformer_s does"):
        create_model("lrformer_s_plus", "features")


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_num_classes(task: Task) -> None:
    params = [count_params(create_model("hrvit_b1", task, SIZE, classes)) for classes in (1, 2)]
    assert params[1] - params[0] == {"classify": 2048 + 1, "segment": 256 + 1}[task]  # one row and its bias


@pytest.mark.parametrize(("name", "task"), FIRST_TASKS)
def test_an_input_of_another_size_is_refused(name: str, task: Task) -> None:
    height, width = small_size(name)
    said = f"an input of {width}x{height} for a model laid out at {height}x{width}"
    with pytest.raises(UsageError, match=said):
        small(name, task)(image(1, (width, height)))


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = small("hrvit_b1", "segment").state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    two = small("hrvit_b1", "segment").state_dict()
    other = small("hrvit_b1", "segment", seed=1).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["backbone.stem.conv1.weight"], other["backbone.stem.conv1.weight"])


def test_perturb_zeros() -> None:
    """Fresh weights start the attention path at zero: there the windows do not even matter."""
    one, two = (small("hrvit_b1", "classify", windows=(1, 2, s, s)) for s in (7, 2))
    assert torch.equal(outputs(one, image())[0], outputs(two, image())[0])
    assert not all(parameter.any() for parameter in one.parameters())
    perturb_zeros(one)
    perturb_zeros(two)
    assert all(parameter.any() for parameter in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.allclose(outputs(one, image())[0], outputs(two, image())[0], atol=1e-4)


def test_the_model_knows_what_it_is(tmp_path: Any) -> None:
    model = small("hrvit_b1", "segment", drop_path=0.2, windows=[1, 2, 9, 9])
    spec: Any = model.spec
    assert spec == model_spec("hrvit_b1", "segment", SIZE, 5, windows=(1, 2, 9, 9), drop_path=0.2)
    assert not hasattr(model, "loaded")
    save_safetensors(model, tmp_path / "w.safetensors", {})
    loaded: Any = small("hrvit_b1", "segment", weights=tmp_path / "w.safetensors", seed=1)
    assert loaded.loaded.loaded == len(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("name", "task"), every())
def test_gradients_reach_every_parameter(name: str, task: Task, training: bool) -> None:
    """No parameter is unused or cut off, whatever the mode of BatchNorm."""
    model = small(name, task, drop_path=0.0).train(training)
    perturb_zeros(model)
    result = model(image(2, small_size(name)))
    maps = result if isinstance(result, tuple) else (result,)
    # Random weights: the plain sum of a LayerNorm's output has no gradient.
    generator = torch.Generator().manual_seed(1)
    torch.autograd.backward(maps, [torch.randn(x.shape, generator=generator) for x in maps])
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    cut = [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert cut == []
    # While training, BatchNorm takes the mean away, so that a bias before it rightly has no gradient.
    none = [key for key, gradient in gradients.items() if gradient is not None and not gradient.any()]
    assert training or none == []


# With one image MixFormer's gate has one number per channel, of which BatchNorm cannot train.
@pytest.mark.parametrize(("name", "batch"), [("hrvit_b1", 1), *((name, 2) for name in firsts().values())])
def test_drop_path_and_dropout_are_for_training(name: str, batch: int) -> None:
    size = (2 * small_size(name)[0], small_size(name)[1] * 2)  # BatchNorm trains on more than one pixel
    model = small(name, "classify", size, drop_path=0.5)
    perturb_zeros(model)
    x = image(batch, size)
    assert torch.equal(outputs(model, x)[0], outputs(model, x)[0])
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(outputs(model, x)[0], outputs(model, x)[0])


# A checkpoint of every variant, over one zero for each key, is recognised when another variant is asked for.
@pytest.mark.parametrize("task", ["classify", "features"])
def test_checkpoints_of_other_variants_are_named(tmp_path: Path, task: Task) -> None:
    for name in ("lrformer_s", "mixformer_b1", "hiri_vit_s", "hrvit_b2"):
        with torch.device("meta"):
            state = build_model(model_spec(name, "classify")).state_dict()
        path = tmp_path / f"{name}.pth"
        blank = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
        torch.save({f"module.{key}": value for key, value in blank.items()}, path)
        with pytest.raises(HiresvitError, match=f"looks like {name}; ask for that"):
            small("mixformer_b0" if name.startswith("mix") else "lrformer_t", task, weights=path)


def test_backbones_are_all_different() -> None:
    names = [name for name, entry in MODELS.items() if "features" in entry.imgsz]
    bodies = [build_empty(name, "features", None, {}) for name in names]
    shapes = [tuple(sorted((key, tuple(value.shape)) for key, value in body.items())) for body in bodies]
    assert len(set(shapes)) == len(names)
    for name in set(MODELS) - set(names):
        assert siblings(name)[0] in names


def test_convert(tmp_path: Path) -> None:
    model = small("mixformer_b0", "classify")
    enliven(model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    target, spec = tmp_path / "w.safetensors", model_spec("mixformer_b0", "classify", num_classes=5)
    report = convert_weights(spec, tmp_path / "w.pth", target)
    assert report.loaded == len(model.state_dict())
    again = small("mixformer_b0", "classify", weights=target)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(HiresvitError, match=r"w\.safetensors exists; pass --force"):
        convert_weights(spec, tmp_path / "w.pth", target)
    before = target.read_bytes()
    convert_weights(spec, tmp_path / "w.pth", target, force=True)
    assert target.read_bytes() == before
