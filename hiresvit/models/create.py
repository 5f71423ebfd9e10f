"""`create_model`, the one way to make a model, and the loading of its weights.

`MODELS` is the table of every variant (hiresvit/models/zoo.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hiresvit.data import preprocess as pictures
from hiresvit.data.dataset import Labels
from hiresvit.data.labels import printable
from hiresvit.data.scenes import sample_images
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.mask2former import Mask2FormerHead, standardise_masks
from hiresvit.models.preprocessing import changed
from hiresvit.models.recognise import choose, describe_candidates, find_candidates, nearest
from hiresvit.models.retinanet import standardise_boxes
from hiresvit.models.weights.facts import facts_of, read_settings
from hiresvit.models.weights.file import Checkpoint, read_checkpoint, read_meta, save_safetensors
from hiresvit.models.weights.match import LoadReport, load_weights
from hiresvit.models.weights.stated import stated_preprocess
from hiresvit.models.zoo import MODELS, find_model, names_checkpoint, siblings
from hiresvit.spec import TASKS, ModelSpec, Task

NEARLY_ZERO = 1e-5


def model_spec(
    name: str,
    task: Task | None = None,
    imgsz: tuple[int, int] | int | None = None,
    num_classes: int | None = None,
    *,
    preprocess: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> ModelSpec:
    """Fill in the family's defaults and check everything that can be checked before a model is built.

    ``preprocess`` are fields of `PreprocessSpec` that differ from what the family's authors do. Raises UsageError on an
    unknown name, task, field or override, and on a size that the family cannot take.
    """
    entry = find_model(name)
    if overrides.get("head") in entry.others:
        rest = {key: value for key, value in overrides.items() if key != "head"}
        return model_spec(entry.others[overrides["head"]], task, imgsz, num_classes, preprocess=preprocess, **rest)
    task = entry.task if task is None else task
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}: {', '.join(TASKS)}")
    if task not in entry.imgsz:
        others = [other for other in siblings(name) if task in MODELS[other].imgsz]
        hint = f": {others[0]} does" if others else ""
        raise UsageError(f"{name} does not serve {task}, only {' and '.join(entry.imgsz)}{hint}")
    if entry.others and "head" in overrides:
        heads = " or ".join(entry.others)
        raise UsageError(f"head={overrides['head']!r}: give {heads}, or leave it out for the head that {name} has")
    if unknown := sorted(set(overrides) - set(entry.overrides)):
        raise UsageError(f"{name} has no argument {', '.join(unknown)}: it takes {', '.join(entry.overrides)}")
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
        num_classes=entry.num_classes.get(task, 0) if num_classes is None else num_classes,
        preprocess=changed(entry.preprocess[task], task, preprocess or {}),
        overrides=tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in overrides.items())),
        strides=entry.strides,
        anchors=entry.anchors if task == "detect" else None,
    )
    entry.check(spec)
    pictures.stride_of(spec.preprocess, spec.imgsz)
    return spec


@dataclass(frozen=True)
class Asked:
    """What was asked for: the spec, the file of weights if there is one, and what is to be said of how it was found."""

    spec: ModelSpec
    weights: Path | None
    notes: tuple[str, ...] = ()


def find_spec(
    name: str,
    weights: str | Path | None = None,
    *,
    ema: bool = False,
    entry: str | None = None,
    allow_missing_head: bool = False,
    **given: Any,
) -> Asked:
    """The spec of a variant's name, or of a checkpoint's file (`recognise_spec`).

    ``given`` are the arguments of `model_spec`. Raises UsageError as that does, for a file with ``weights`` beside it,
    and for what is said of weights where there are none.
    """
    if names_checkpoint(name) or (name not in MODELS and os.path.isfile(name)):
        if weights is not None:
            raise UsageError(f"{name} is a checkpoint itself: leave out --weights {weights}, or give the model's name")
        return recognise_spec(Path(name), ema=ema, entry=entry, allow_missing_head=allow_missing_head, **given)
    for option, asked in (("--ema", ema), ("--entry", entry), ("--allow-missing head", allow_missing_head)):
        if asked and weights is None:
            raise UsageError(f"{option} is about a checkpoint: give one with --weights")
    spec = model_spec(name, **given)
    if weights is None:
        return Asked(spec, None)
    spec, said = _as_stated(spec, Path(weights), read_meta(Path(weights)), given.get("preprocess"))
    return Asked(spec, Path(weights), said)


def _as_stated(
    spec: ModelSpec, path: Path, meta: Mapping[str, Any], changes: Mapping[str, Any] | None
) -> tuple[ModelSpec, tuple[str, ...]]:
    """A spec with the preprocessing that a checkpoint states, and what is to be said of it."""
    row = MODELS[spec.name].preprocess[spec.task]
    found, notes = stated_preprocess(row, spec.task, meta, changes or {})
    pictures.stride_of(found, spec.imgsz)
    return replace(spec, preprocess=found), tuple(f"{path.name}: {note}" for note in notes)


def recognise_spec(
    path: Path, *, ema: bool = False, entry: str | None = None, allow_missing_head: bool = False, **given: Any
) -> Asked:
    """What a checkpoint is of: variant, task, number of classes and the head's kind, from its tensors.

    ``given`` are the arguments of `model_spec`; they have the say where a file looks like something else, and loading
    it then says so. The size is the family's own. Raises UsageError for a file that can be more than one thing, with
    what to type, and HiresvitError for one that cannot be read or is of no variant.
    """
    checkpoint = read_checkpoint(path, ema=ema, entry=entry)
    found = find_candidates(path, checkpoint, build_empty)
    if not found:
        near = nearest(path, checkpoint, build_empty)
        raise HiresvitError(f"{path} is of none of the {len(MODELS)} models; nearest is {near}")
    one = choose(path, found, given.get("task"))
    seen = {**dict(one.settings), **read_settings(checkpoint, one.name, one.task)}
    chosen = {**seen, **{key: value for key, value in given.items() if value is not None}}
    if one.num_classes is not None:
        chosen.setdefault("num_classes", one.num_classes)
    # of a file without any head features are all that it can give, unless a head is to be drawn
    chosen.setdefault("task", None if allow_missing_head and one.task == "features" else one.task)
    of_no_file = ("head", "drop_path", "postprocess", *chosen)
    hidden = [key for key in MODELS[one.name].overrides if key not in of_no_file]
    note = f"{path.name} is recognised as {one}"
    if hidden:
        note += f"; {', '.join(hidden)} cannot be seen in a file: the variant's own, unless --set gives others"
    spec, said = _as_stated(model_spec(one.name, **chosen), path, checkpoint.meta, given.get("preprocess"))
    return Asked(spec, path, (note, *said))


def create_model(
    name: str,
    task: Task | None = None,
    imgsz: tuple[int, int] | int | None = None,
    num_classes: int | None = None,
    weights: str | Path | None = None,
    *,
    ema: bool = False,
    allow_missing_head: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> nn.Module:
    """Make a model in float32, in evaluation mode, for one task and one input size.

    Returns logits (B, classes) for ``classify``, logits (B, classes, H/s, W/s) at the head's own stride s, 4 or 8,
    for ``segment``, or the tuple of maps with strides 4, 8, 16, 32 (HIRI-ViT: 8, 16, 32, 64) for ``features``;
    input (B, 3, H, W), made as `hiresvit.data.preprocess` does by ``model.spec.preprocess``. ``imgsz`` is (H, W).
    Without ``weights`` they are drawn from ``seed``; ``allow_missing_head`` takes weights that lack the task's head and
    draws only that. ``overrides`` are the family's own arguments, such as HRViT's ``windows=(1, 2, 9, 9)``
    (`ModelEntry.overrides` names them), the ``preprocess`` of `model_spec`, and ``entry``, which like ``ema`` chooses
    among several sets of weights in one file. The model carries its `ModelSpec` as ``spec`` and, when weights were
    read, the `LoadReport` as ``loaded``.

    ``name`` may be a checkpoint's file, which then stands for the model, its head and its weights (`find_spec`).

    Raises UsageError on arguments that cannot be served and HiresvitError on weights that do not fit.
    """
    given = {"task": task, "imgsz": imgsz, "num_classes": num_classes, **overrides}
    asked = find_spec(name, weights, ema=ema, allow_missing_head=allow_missing_head, **given)
    spec = asked.spec
    model = build_model(spec, seed=seed)
    if asked.weights is not None:
        entry = overrides.get("entry")
        load_model_weights(model, spec, asked.weights, ema=ema, entry=entry, allow_missing_head=allow_missing_head)
    return model


def build_model(spec: ModelSpec, *, seed: int = 0) -> nn.Module:
    """The model a spec describes, with fresh weights drawn from ``seed``; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):  # of the CPU's generator, the only one that is used
        torch.default_generator.manual_seed(seed)
        model = MODELS[spec.name].build(spec)
    model.spec = spec  # type: ignore[assignment]
    return model.eval()


def load_model_weights(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    *,
    ema: bool = False,
    entry: str | None = None,
    allow_missing_head: bool = False,
) -> LoadReport:
    """Read a checkpoint into a model of `build_model`, all of it or nothing. Raises HiresvitError.

    With ``allow_missing_head`` the task's head may be absent; the model then keeps its own (`LoadReport.fresh`).
    """
    layout = MODELS[spec.name].layout

    def hint(checkpoint: Checkpoint) -> str:
        return describe_candidates(find_candidates(path, checkpoint, build_empty), spec)

    report = load_weights(
        model,
        path,
        task=spec.task,
        layout=layout,
        ema=ema,
        entry=entry,
        allow_missing_head=allow_missing_head,
        hint=hint,
    )
    if report.fresh:
        vary_answers(model, spec)
    model.loaded = report  # type: ignore[assignment]
    return report


def convert_weights(
    spec: ModelSpec,
    source: Path,
    target: Path,
    *,
    ema: bool = False,
    entry: str | None = None,
    allow_missing_head: bool = False,
    labels: Labels | None = None,
    force: bool = False,
) -> LoadReport:
    """Write a checkpoint as safetensors under our names; its metadata say which model it is of (`facts_of`).

    It is loaded as a model would load it. Raises HiresvitError on what does not fit, and if ``target`` is there
    already and ``force`` is not given.
    """
    if target.exists() and not force:
        raise HiresvitError(f"{target} exists; pass --force to replace it or choose another name")
    model = build_model(spec)
    report = load_model_weights(model, spec, source, ema=ema, entry=entry, allow_missing_head=allow_missing_head)
    row = MODELS[spec.name].preprocess[spec.task]
    found = facts_of(spec, printable(source.name), labels or report.labels, report.untrained, row=row)
    save_safetensors(model, target, found)
    return report


def build_empty(name: str, task: Task, num_classes: int | None, settings: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The tensors of a variant without their data, at the default size, which they do not depend on."""
    return _built_empty(MODELS[name].build, model_spec(name, task, None, num_classes, **settings))


@lru_cache(maxsize=64)
def _built_empty(build: Callable[[ModelSpec], nn.Module], spec: ModelSpec) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return build(spec).state_dict()


def enliven(model: nn.Module, spec: ModelSpec, seed: int = 0) -> None:
    """Make fresh weights fit for a comparison, in place and the same for the same seed.

    Fresh weights hide mistakes: HRViT starts the BatchNorm after attention at zero and LRFormer its layer scales at
    1e-6, so that attention changes nothing, and logits hardly move around their bias, so one class wins nearly every
    pixel. See `perturb_zeros` and `standardise_logits`.
    """
    perturb_zeros(model, seed)
    vary_answers(model, spec)


def vary_answers(model: nn.Module, spec: ModelSpec) -> None:
    """Make the labels of a fresh segmentor's pixels vary, in place: see `standardise_logits`, `standardise_masks`."""
    head = getattr(model, "decode_head", None)
    if isinstance(head, Mask2FormerHead):
        standardise_masks(model, _example(spec))
    elif spec.task == "segment":
        standardise_logits(model, _example(spec))
    if spec.task == "detect":
        standardise_boxes(model, spec, _example(spec))


def _example(spec: ModelSpec) -> Tensor:
    """A drawn street scene as the network takes it: (1, 3, H, W)."""
    [image] = sample_images(1, spec.imgsz)
    return torch.from_numpy(pictures.example_input(image, spec.preprocess, spec.imgsz))


def perturb_zeros(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter that is zero throughout, or next to it, from N(0, 0.3), in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and parameter.abs().max() < NEARLY_ZERO:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def standardise_logits(model: nn.Module, images: Tensor) -> None:
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
