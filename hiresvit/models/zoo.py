"""The table of every variant: what it serves, at which size by default, what it costs, what was published about it.

A family adds a module with ``build`` and ``check``, and its rows here. The rows are data: a family's module, and with
it PyTorch, is imported when a model is built or a size checked.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.kinds import name_file_kind
from hiresvit.models import preprocessing
from hiresvit.models.weights.layout import Layout
from hiresvit.spec import STRIDES, AnchorSpec, ModelSpec, PreprocessSpec, Task

if TYPE_CHECKING:
    from torch import nn


DEFAULT_CLASSES: Mapping[Task, int] = {"classify": 1000, "segment": 19, "features": 0, "detect": 80}


@dataclass(frozen=True)
class Numbers:
    """What a variant has for one task, at the task's default size and number of classes.

    ``params`` in millions and ``gmacs`` in billions are ours: convolutions, linear layers and both attention
    matmuls. ``paper_params``, printed with ``digits`` decimals, and ``paper_gmacs`` are the paper's, where it
    has them, in its own convention (`ModelEntry.convention`).
    """

    params: float
    gmacs: float
    paper_params: float | None = None
    paper_gmacs: float | None = None
    digits: int = 1


@dataclass(frozen=True)
class ModelEntry:
    """One variant: how to build it, where it may be used, what is known about it.

    ``strides`` are those of the maps of ``features``; ``numbers`` has a row for every task it serves, and
    ``num_classes`` the number of classes unless another is given. ``others`` are variants by the head that they differ
    in: asking for this one with that head (``head=NAME``) is asking for them. ``anchors`` are those of ``detect``.
    """

    family: str
    build: Callable[[ModelSpec], nn.Module]
    check: Callable[[ModelSpec], None]
    overrides: tuple[str, ...]
    task: Task
    imgsz: Mapping[Task, tuple[int, int]]
    numbers: Mapping[Task, Numbers]
    convention: str
    weights: str
    layout: Layout
    preprocess: Mapping[Task, PreprocessSpec]
    strides: tuple[int, ...] = STRIDES
    num_classes: Mapping[Task, int] = field(default_factory=lambda: dict(DEFAULT_CLASSES))
    others: Mapping[str, str] = field(default_factory=dict)
    anchors: AnchorSpec | None = None


def _of(family: str, function: str) -> Callable[[ModelSpec], Any]:
    """A function of a family's module, which is imported with the first call."""

    def call(spec: ModelSpec) -> Any:
        return getattr(importlib.import_module(f"hiresvit.models.{family}"), function)(spec)

    return call


_HRVIT = ModelEntry(
    family="hrvit",
    build=_of("hrvit", "build"),
    check=_of("hrvit", "check"),
    overrides=("windows", "head", "drop_path"),
    task="segment",
    imgsz={"segment": (512, 512), "classify": (224, 224), "features": (512, 512)},
    numbers={},
    convention="weights' products, one of the two attention matmuls, norms and biases",
    weights="none by the authors, whose code is mostly CC-BY-NC 4.0; a user's of b1: facebookresearch/HRViT#3",
    layout=Layout(classifier="head.classifier.", heads={"segment": ("segformer", "upernet")}),
    preprocess=preprocessing.HRVIT,
)
_LRFORMER = ModelEntry(
    family="lrformer",
    build=_of("lrformer", "build"),
    check=_of("lrformer", "check"),
    overrides=("pooled_size", "pool_small", "drop_path"),
    task="segment",
    imgsz={"segment": (512, 512), "classify": (224, 224), "features": (512, 512)},
    numbers={},
    convention="all products, norms, pooling and resizing; segmentation with 150 classes",
    weights="the authors' {}, Apache-2.0",
    layout=Layout(classifier="head.fc.", foreign_head=True),
    preprocess=preprocessing.LRFORMER,
)
_LRFORMER_PLUS = replace(
    _LRFORMER,
    overrides=("postprocess", "pooled_size", "pool_small", "drop_path"),
    imgsz={"segment": (512, 512), "masks": (512, 512)},
    convention="all products, norms and resizing, without those that make labels of masks; 150 classes",
    weights="none released; the code is Apache-2.0",
    layout=Layout(classifier="head.fc.", segment_classes="decode_head.cls_embed.", extra_classes=1),
    preprocess=preprocessing.LRFORMER_PLUS,
    num_classes={"segment": 150, "masks": 150},
)
_LRFORMER_PLUS_640 = replace(_LRFORMER_PLUS, imgsz={"segment": (640, 640), "masks": (640, 640)})
_MIXFORMER = ModelEntry(
    family="mixformer",
    build=_of("mixformer", "build"),
    check=_of("mixformer", "check"),
    overrides=("drop_path",),
    task="classify",
    imgsz={"classify": (224, 224), "segment": (512, 512), "features": (512, 512), "detect": (640, 640)},
    numbers={},
    convention="all products and norms, rounded; B0, B5 and B6 from PaddleClas",
    weights="PaddleClas (MixFormer_B?_pretrained.pdparams), Apache-2.0",
    layout=Layout(
        head=("norm", "last_proj", "head"),
        linears=("proj_attn", "proj_cnn", "qkv", "proj", "fc1", "fc2", "last_proj", "head"),
        derived=("relative_position_index",),
    ),
    preprocess=preprocessing.MIXFORMER,
    anchors=AnchorSpec(),
)
_HIRI_VIT = ModelEntry(
    family="hiri_vit",
    build=_of("hiri_vit", "build"),
    check=_of("hiri_vit", "check"),
    overrides=("head", "stride_plan", "drop_path"),
    task="classify",
    imgsz={"classify": (448, 448), "segment": (512, 512), "features": (512, 512), "detect": (640, 640)},
    numbers={},
    convention="all products",
    weights="none released, nor any code of the authors",
    layout=Layout(head=("norm", "head"), classifier="head.fc.", heads={"classify": ("mlp", "linear")}),
    preprocess=preprocessing.HIRI_VIT,
    anchors=AnchorSpec(strides=(16, 32, 64, 128, 256)),  # the paper's MACs have no room for a level at stride 8
    strides=(8, 16, 32, 64),
)
Row = (
    tuple[float, float]
    | tuple[float, float, float | None, float]
    | tuple[float, float, float | None, float | None, int]
)


def _variant(family: ModelEntry, *rows: Row | None) -> ModelEntry:
    """A family's entry with `Numbers` for each of its tasks, or None; the first task that is served is the default."""
    numbers = {task: Numbers(*row) for task, row in zip(family.imgsz, rows, strict=True) if row}
    imgsz = {task: family.imgsz[task] for task in numbers}
    return replace(family, task=next(iter(numbers)), imgsz=imgsz, numbers=numbers)


def _lrformer(file: str, *rows: Row | None) -> ModelEntry:
    return _variant(replace(_LRFORMER, weights=_LRFORMER.weights.format(file)), *rows)


_NO_PADDLE = replace(_MIXFORMER, weights="none released; the code of PaddleClas is Apache-2.0")
_NANO = replace(
    _HRVIT,
    imgsz={"segment": (256, 256), "features": (256, 256)},
    preprocess=preprocessing.NANO,
    weights="examples/hrvit_nano.safetensors, ours, trained on drawn scenes; the variant is not the paper's",
)

# Rows in the order of the family's tasks. Ours are checked by tests/models/test_macs.py. The papers': HRViT Tables 1, 3
# and 7 (Cityscapes' 19 classes); LRFormer's ImageNet table, Cityscapes' parameters and ADE20K's MACs at 512x512;
# MixFormer's ImageNet table; HIRI-ViT's rows at 448x448.
MODELS: dict[str, ModelEntry] = {
    "hrvit_b1": _variant(_HRVIT, (8.149, 15.212, 8.1, 14.1), (19.685, 2.776, 19.7, 2.7), (7.758, 10.585)),
    "hrvit_b2": _variant(_HRVIT, (20.776, 29.588, 20.8, 27.4), (32.486, 5.288, 32.5, 5.1), (20.311, 24.824)),
    "hrvit_b3": _variant(_HRVIT, (28.624, 68.800, 28.6, 66.28), (37.870, 5.900, 37.9, 5.7), (25.508, 28.397)),
    "hrvit_nano": _variant(_NANO, (0.721, 0.510), (0.682, 0.423)),
    "lrformer_t": _lrformer(
        "lrformer_tiny.pth", (13.231, 16.412, 13, 17, 0), (13.046, 1.723, 13, 1.8, 0), (11.270, 9.065)
    ),
    "lrformer_s": _lrformer(
        "LRFormer_small.pth", (32.173, 39.511, 32, 40, 0), (29.801, 4.576, 30, 4.7, 0), (27.861, 24.102)
    ),
    "lrformer_b": _lrformer(
        "lrformer_base.pth", (67.438, 74.087, 67, 75, 0), (61.933, 9.147, 62, 9.3, 0), (59.993, 48.227)
    ),
    "lrformer_l": _lrformer(
        "lrformer_large.pth", (110.896, 121.015, 111, 122, 0), (101.410, 15.477, 101, 15.7, 0), (99.306, 81.375)
    ),
    "lrformer_xl": _lrformer("lrformer_xl_in22k_1k_89e.pth", None, (186.989, 31.288, 187, 31.6, 0), (184.721, 164.037)),
    "lrformer_t_plus": _variant(_LRFORMER_PLUS, (31.017, 56.321, 31, None, 0), (31.017, 52.389, 31, 53, 0)),
    "lrformer_s_plus": _variant(_LRFORMER_PLUS, (47.674, 71.488, 48, None, 0), (47.674, 67.555, 48, 70, 0)),
    "lrformer_b_plus": _variant(_LRFORMER_PLUS, (79.838, 95.734, 80, None, 0), (79.838, 91.802, 80, 94, 0)),
    "lrformer_l_plus": _variant(_LRFORMER_PLUS_640, (119.217, 195.390, 119, None, 0), (119.217, 189.246, 119, 192, 0)),
    "lrformer_xl_plus": _variant(_LRFORMER_PLUS_640, (204.730, 320.741, 205, None, 0), (204.730, 314.597, 205, 365, 0)),
    "mixformer_b0": _variant(
        _NO_PADDLE, (5.099, 0.402, None, 0.4), (30.909, 210.726), (3.570, 2.214), (12.923, 63.472)
    ),
    "mixformer_b1": _variant(
        _MIXFORMER, (7.888, 0.699, 8, 0.7, 0), (34.070, 212.579), (6.277, 3.872), (15.806, 65.969)
    ),
    "mixformer_b2": _variant(
        _MIXFORMER, (9.895, 0.898, 10, 0.9, 0), (36.077, 213.721), (8.284, 5.014), (17.813, 67.632)
    ),
    "mixformer_b3": _variant(
        _MIXFORMER, (16.748, 1.804, 17, 1.9, 0), (43.675, 219.125), (14.973, 10.029), (24.855, 75.229)
    ),
    "mixformer_b4": _variant(
        _MIXFORMER, (34.798, 3.475, 35, 3.6, 0), (62.470, 229.030), (32.859, 19.544), (43.092, 89.209)
    ),
    "mixformer_b5": _variant(
        _NO_PADDLE, (61.692, 6.689, None, 6.8), (90.856, 247.740), (59.426, 37.476), (70.364, 116.111)
    ),
    "mixformer_b6": _variant(
        _MIXFORMER, (119.505, 12.562, None, 12.7), (148.668, 281.205), (117.238, 70.942), (128.176, 165.183)
    ),
    "hiri_vit_s": _variant(_HIRI_VIT, (34.718, 5.036, 34.8, 5.0), (60.484, 58.973), (30.840, 6.583), (41.090, 25.791)),
    "hiri_vit_b": _variant(_HIRI_VIT, (54.354, 9.926, 54.4, 9.9), (79.642, 65.533), (49.097, 13.001), (59.691, 36.155)),
    "hiri_vit_l": _variant(
        _HIRI_VIT, (94.191, 19.824, 94.4, 19.9), (119.594, 78.807), (88.934, 26.108), (99.569, 57.329)
    ),
}
# Asking for LRFormer with Mask2Former's head is asking for LRFormer+.
MODELS |= {
    name: replace(entry, others={"mask2former": f"{name}_plus"})
    for name, entry in MODELS.items()
    if f"{name}_plus" in MODELS
}


def siblings(name: str) -> list[str]:
    """The variants that have this one's backbone and another head, in the order of the table."""
    first = next((one for one, entry in MODELS.items() if name in entry.others.values()), name)
    return [one for one in (first, *MODELS[first].others.values()) if one != name]


def list_models() -> list[str]:
    """Names of all variants, in the order of the table."""
    return list(MODELS)


# How the files of weights are called that stand where a model's name can.
_CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".pdparams", ".safetensors", ".pkl", ".gz", ".zip")


def names_checkpoint(text: str) -> bool:
    """Whether a text that stands for a model is a checkpoint's file and no name: by its suffix, or by how it starts."""
    if text in MODELS:
        return False
    path = Path(text)
    if path.suffix.lower() in _CHECKPOINTS:
        return not path.is_dir()
    try:
        with path.open("rb") as stream:
            kind = name_file_kind(stream.read(512)) or ""
    except (OSError, ValueError):
        return False
    return kind.startswith(("a PyTorch checkpoint", "a safetensors file", "a pickle"))


def has_queries(spec: ModelSpec) -> bool:
    """Whether a model's head is one of queries: its answers are sums over them, signs and places decide inside."""
    entry = MODELS.get(spec.name)
    return entry is not None and "masks" in entry.imgsz


def require_confidence(spec: ModelSpec) -> None:
    """Raise UsageError for a segmentor whose answers are sums over queries, from 0 to 100: nobody's softmax."""
    if has_queries(spec):
        raise UsageError(
            f"{spec.name}: no confidence comes of it, because its logits are sums of shares of masks and the softmax of"
            " these says nothing; leave it out, and take the sums themselves from contract tensor (docs/masks.md)"
        )


def find_model(name: str) -> ModelEntry:
    """The registry's entry for a variant. Raises UsageError, with the nearest names, on an unknown one.

    What is rather a path is told so: UsageError for what is there, HiresvitError for what is not.
    """
    if name in MODELS:
        return MODELS[name]
    if os.path.exists(name):
        what = "a folder" if os.path.isdir(name) else "a file"
        raise UsageError(f"{name} is {what} and no model: give a name of `hiresvit list`, or a checkpoint's file")
    if Path(name).suffix or len(Path(name).parts) > 1:
        raise HiresvitError(f"{name} does not exist")
    near = difflib.get_close_matches(name.lower().replace("-", "_"), MODELS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `hiresvit list`"
    raise UsageError(f"unknown model {name!r}: {hint}")
