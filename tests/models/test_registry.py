"""`create_model`: every model for every task, and everything it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from lively import enliven
from torch import Tensor, nn

from hiresvit.errors import UsageError
from hiresvit.models import MODELS, create_model, list_models, model_spec, perturb_zeros
from hiresvit.models.checkpoint import save_safetensors
from hiresvit.models.macs import count_params
from hiresvit.spec import TASKS, Task

# Small, not square, and in need of padding: the maps are 4x6 and 2x3 where the windows are 7.
SIZE = (64, 96)
CLASSES = {"classify": 5, "segment": 5, "features": None}
EVERY = [(name, task) for name in MODELS for task in TASKS]


def small(name: str, task: Task, size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    return create_model(name, task, size, CLASSES[task], **options)


def image(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def outputs(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = model(x)
    return result if isinstance(result, tuple) else (result,)


def channels(name: str) -> tuple[int, ...]:
    return {"b1": (32, 64, 128, 256), "b2": (48, 96, 240, 384), "b3": (64, 128, 256, 512)}[name[-2:]]


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_outputs(name: str, task: Task) -> None:
    model = small(name, task)
    assert not model.training
    maps = [(2, c, SIZE[0] // s, SIZE[1] // s) for c, s in zip(channels(name), (4, 8, 16, 32), strict=True)]
    expected = {"classify": [(2, 5)], "segment": [(2, 5, 16, 24)], "features": maps}[task]
    single = outputs(model, image(2))
    assert [tuple(x.shape) for x in single] == expected
    assert {x.dtype for x in single} == {torch.float32}

    double = outputs(model.double(), image(2).double())
    assert {x.dtype for x in double} == {torch.float64}
    for one, two in zip(single, double, strict=True):
        # Rounding of float32 through some 20 blocks, on values of order 1.
        torch.testing.assert_close(one.double(), two, rtol=0, atol=1e-4)


def test_images_of_a_batch_are_independent() -> None:
    model = small("hrvit_b1", "features").double()
    enliven(model)
    batch = image(3).double()
    for whole, alone in zip(outputs(model, batch), outputs(model, batch[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=1e-12)  # float64, sums in another order


@pytest.mark.parametrize("name", list(MODELS))
def test_windows(name: str) -> None:
    """Weights do not depend on the windows, results do; 1-2-7-7 are the default."""
    results = []
    for options in ({}, {"windows": [1, 2, 7, 7]}, {"windows": (1, 2, 2, 3)}):
        model = small(name, "classify", **options)
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
        ({"window": 7}, "hrvit_b1 has no argument window: it takes windows, drop_path"),
        ({"depth": 7, "width": 2}, "no argument depth, width"),
        ({"num_classes": 0}, "num_classes=0: give a whole number of 1 or more"),
        ({"task": "detect"}, "unknown task 'detect': classify, segment, features"),
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
        spec = model_spec(name)
        assert (spec.task, spec.imgsz, spec.num_classes) == ("segment", (512, 512), 19)
        assert model_spec(name, "classify").imgsz == (224, 224)
        assert model_spec(name, "classify").num_classes == 1000
        assert model_spec(name, "features").num_classes == 0
        for task in TASKS:
            assert model_spec(name, task).imgsz == entry.imgsz[task]
    assert model_spec("hrvit_b1", imgsz=64).imgsz == (64, 64)


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_num_classes(task: Task) -> None:
    params = [count_params(create_model("hrvit_b1", task, SIZE, classes)) for classes in (1, 2)]
    assert params[1] - params[0] == {"classify": 2048 + 1, "segment": 256 + 1}[task]  # one row and its bias


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_an_input_of_another_size_is_refused(name: str, task: Task) -> None:
    with pytest.raises(UsageError, match="an input of 96x64 for a model laid out at 64x96"):
        small(name, task)(image(1, (96, 64)))


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
    zeros = sum(not parameter.any() for parameter in one.parameters())
    assert perturb_zeros(one) == perturb_zeros(two) == zeros > 0
    assert perturb_zeros(one) == 0
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
@pytest.mark.parametrize(("name", "task"), EVERY)
def test_gradients_reach_every_parameter(name: str, task: Task, training: bool) -> None:
    """No parameter is unused or cut off, whatever the mode of BatchNorm."""
    model = small(name, task, drop_path=0.0).train(training)
    perturb_zeros(model)
    result = model(image(2))
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


@pytest.mark.parametrize("batch", [1, 2])
def test_drop_path_and_dropout_are_for_training(batch: int) -> None:
    model = small("hrvit_b1", "classify", drop_path=0.5)
    perturb_zeros(model)
    x = image(batch)
    assert torch.equal(outputs(model, x)[0], outputs(model, x)[0])
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(outputs(model, x)[0], outputs(model, x)[0])
