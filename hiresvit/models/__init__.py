"""The registry of models and `create_model`, the one way to make one.

`MODELS` is the explicit table of every variant: what it serves, at which size by default, and what the paper says
of it. A family adds a module with a ``build`` function and its rows here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiresvit.data import sample_images
from hiresvit.errors import UsageError
from hiresvit.models import hrvit
from hiresvit.models.checkpoint import LoadReport, load_weights
from hiresvit.preprocess import preprocess
from hiresvit.spec import TASKS, ModelSpec, PreprocessSpec, Task

DEFAULT_CLASSES: Mapping[Task, int] = {"classify": 1000, "segment": 19, "features": 0}
PREPROCESS: Mapping[Task, PreprocessSpec] = {
    "classify": PreprocessSpec(resize="crop", interpolation="bicubic"),
    "segment": PreprocessSpec(),
    "features": PreprocessSpec(),
}


@dataclass(frozen=True)
class Published:
    """A row of a paper's table: parameters in millions, multiply-accumulates in billions at ``imgsz``.

    ``macs`` is in the paper's own convention; `gmacs` are ours (convolution + linear + both attention matmuls).
    """

    params: float
    macs: float
    imgsz: tuple[int, int]
    gmacs: float
    params_digits: int = 1


@dataclass(frozen=True)
class ModelEntry:
    """One variant: how to build it, where it may be used, what was published about it."""

    family: str
    build: Callable[[ModelSpec], nn.Module]
    check: Callable[[ModelSpec], None]
    imgsz: Mapping[Task, tuple[int, int]]
    published: Mapping[Task, Published]
    overrides: tuple[str, ...]
    task: Task = "segment"
    weights: str = "none released; the authors' code is CC-BY-NC 4.0"


def _hrvit(classify: Published, segment: Published) -> ModelEntry:
    return ModelEntry(
        family="hrvit",
        build=hrvit.build,
        check=hrvit.check,
        imgsz={"segment": (512, 512), "classify": (224, 224), "features": (512, 512)},
        published={"classify": classify, "segment": segment},
        overrides=hrvit.OVERRIDES,
    )


# Parameters and MACs of the paper: classification at 224x224 (Table 3), Cityscapes with 19 classes at 512x512
# (Tables 1 and 7). ``gmacs`` is checked by tests/models/test_macs.py.
MODELS: dict[str, ModelEntry] = {
    "hrvit_b1": _hrvit(
        Published(19.7, 2.7, (224, 224), gmacs=2.776), Published(8.1, 14.1, (512, 512), gmacs=15.212)
    ),
    "hrvit_b2": _hrvit(
        Published(32.5, 5.1, (224, 224), gmacs=5.288), Published(20.8, 27.4, (512, 512), gmacs=29.588)
    ),
    "hrvit_b3": _hrvit(
        Published(37.9, 5.7, (224, 224), gmacs=5.900), Published(28.6, 66.28, (512, 512), gmacs=68.800)
    ),
}


def list_models() -> list[str]:
    """Names of all variants, in the order of the table."""
    return list(MODELS)


def find_model(name: str) -> ModelEntry:
    """The registry's entry for a variant. Raises UsageError, with the nearest names, on an unknown one."""
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), MODELS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `hiresvit list`"
    raise UsageError(f"unknown model {name!r}: {hint}")


def model_spec(
    name: str,
    task: Task | None = None,
    imgsz: tuple[int, int] | int | None = None,
    num_classes: int | None = None,
    **overrides: Any,
) -> ModelSpec:
    """Fill in the family's defaults and check everything that can be checked before a model is built.

    Raises UsageError on an unknown name, task or override, and on a size that the family cannot take.
    """
    entry = find_model(name)
    task = entry.task if task is None else task
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}: {', '.join(TASKS)}")
    if unknown := sorted(set(overrides) - set(entry.overrides)):
        raise UsageError(
            f"{name} has no argument {', '.join(unknown)}: it takes {', '.join(entry.overrides)}"
        )
    if num_classes is not None and task == "features":
        raise UsageError("features have no classes: leave num_classes (--num-classes) out")
    if num_classes is not None and (type(num_classes) is not int or num_classes < 1):
        raise UsageError(f"num_classes={num_classes}: give a whole number of 1 or more")
    if imgsz is None:
        imgsz = entry.imgsz[task]
    elif type(imgsz) is int:
        imgsz = (imgsz, imgsz)
    if not isinstance(imgsz, Sequence) or len(imgsz) != 2 or any(type(side) is not int for side in imgsz):
        raise UsageError(f"imgsz={imgsz!r}: give (height, width) in whole pixels")
    spec = ModelSpec(
        name=name,
        family=entry.family,
        task=task,
        imgsz=(imgsz[0], imgsz[1]),
        num_classes=DEFAULT_CLASSES[task] if num_classes is None else num_classes,
        preprocess=PREPROCESS[task],
        overrides=tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in overrides.items())),
    )
    entry.check(spec)
    return spec


def create_model(
    name: str,
    task: Task | None = None,
    imgsz: tuple[int, int] | int | None = None,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    *,
    ema: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> nn.Module:
    """Make a model in float32, in evaluation mode, for one task and one input size.

    Returns logits (B, classes) for ``classify``, logits (B, classes, H/4, W/4) at the head's own stride for
    ``segment``, or the tuple of maps with strides 4, 8, 16, 32 for ``features``; input (B, 3, H, W), normalised as
    `hiresvit.preprocess` does. ``imgsz`` is (H, W). Without ``weights`` they are drawn from ``seed``.
    ``overrides`` are the family's own arguments, for HRViT ``windows=(1, 2, 9, 9)`` and ``drop_path=0.1``.
    The model carries its `ModelSpec` as ``spec`` and, when weights were read, the `LoadReport` as ``loaded``.

    Raises UsageError on arguments that cannot be served and HiresvitError on weights that do not fit.
    """
    spec = model_spec(name, task, imgsz, num_classes, **overrides)
    model = build_model(spec, seed=seed)
    if weights is not None:
        load_model_weights(model, spec, Path(weights), ema=ema)
    return model


def build_model(spec: ModelSpec, *, seed: int = 0) -> nn.Module:
    """The model a spec describes, with fresh weights drawn from ``seed``; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):  # of the CPU's generator, the only one that is used
        torch.default_generator.manual_seed(seed)
        model = MODELS[spec.name].build(spec)
    model.spec = spec  # type: ignore[assignment]
    return model.eval()


def load_model_weights(model: nn.Module, spec: ModelSpec, path: Path, *, ema: bool = False) -> LoadReport:
    """Read a checkpoint into a model of `build_model`, all of it or nothing. Raises HiresvitError."""

    def siblings() -> dict[str, dict[str, tuple[int, ...]]]:
        shapes = {}
        for other, entry in MODELS.items():
            with torch.device("meta"):
                built = entry.build(model_spec(other, spec.task, None, spec.num_classes or None))
            shapes[other] = {key: tuple(value.shape) for key, value in built.state_dict().items()}
        return shapes

    report = load_weights(model, path, task=spec.task, ema=ema, siblings=siblings)
    model.loaded = report  # type: ignore[assignment]
    return report


def enliven(model: nn.Module, spec: ModelSpec, seed: int = 0) -> None:
    """Make fresh weights fit for a comparison, in place and the same for the same seed.

    Fresh weights hide mistakes: HRViT starts the BatchNorm after attention at zero, so attention changes nothing,
    and logits hardly move around their bias, so one class wins nearly every pixel. See `perturb_zeros` and
    `standardise_logits`.
    """
    perturb_zeros(model, seed)
    if spec.task == "segment":
        images = [preprocess(image, spec.preprocess, spec.imgsz) for image in sample_images(1, spec.imgsz)]
        standardise_logits(model, torch.from_numpy(images[0]))


def perturb_zeros(model: nn.Module, seed: int = 0) -> int:
    """Draw every parameter that is zero throughout from N(0, 0.3), in place; returns how many there were."""
    generator = torch.Generator().manual_seed(seed)
    count = 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
                count += 1
    return count


def standardise_logits(model: nn.Module, images: torch.Tensor) -> None:
    """Give every class of a fresh segmentor mean 0 and deviation 1 over ``images`` (B, 3, H, W), in place.

    Then all classes compete in every pixel, and a small error shows in the argmax.
    """
    *_, classifier = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert classifier.bias is not None
    with torch.inference_mode():
        logits = model(images).double()
    # Rounded, so that the order of summation, which follows the number of threads, does not show in the weights.
    std, mean = (value.bfloat16().double() for value in torch.std_mean(logits, dim=(0, 2, 3)))
    with torch.no_grad():
        classifier.weight.div_(std[:, None, None, None])
        classifier.bias.sub_(mean).div_(std)
