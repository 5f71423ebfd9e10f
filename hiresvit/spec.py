"""What is said about a model without loading it: frozen dataclasses, standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Feed: TypeAlias = Mapping[str, "NDArray[Any]"]
"""Arrays by name: what goes into a network, or comes out of it."""

Task = Literal["classify", "segment", "features", "masks", "detect"]
"""``masks`` and ``detect`` are a head's raw outputs, for an app that makes something else of them than a map of labels:
masks and their classes, and boxes at anchors."""

TASKS: tuple[Task, ...] = ("classify", "segment", "features", "masks", "detect")


def is_raw(task: Task) -> bool:
    """Whether what comes out is tensors that only an app makes an answer of, and no labels or classes."""
    return task not in ("classify", "segment")


STRIDES = (4, 8, 16, 32)  # of the maps of a backbone with four stages

MASKS = "masks"  # what raw masks are called
QUERIES, MASK_STRIDE = 100, 4  # of them: how many, and how much smaller than the image each is

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Resize = Literal["stretch", "crop", "keep", "letterbox", "slide"]
Pixels = Literal["rgb", "bgr", "rgba", "bgra", "nv12"]
Yuv = Literal["bt601", "bt709", "bt601-full", "bt709-full"]
LabelType = Literal["uint8", "int32", "int64"]
HtpForm = Literal["fp16", "a16w8", "a8w8"]
"""What a graph for Qualcomm's HTP computes in: FP16, or activations of 16 or 8 bits with weights of 8."""

HTP_FORMS: tuple[HtpForm, ...] = ("fp16", "a16w8", "a8w8")


class Feeds(Protocol):
    """Inputs of a network by number, each made when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Feed: ...


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a graph input or output; a string in the shape is a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def tensor_specs(values: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Of plain JSON values, as `dataclasses.asdict` makes them."""
    return tuple(TensorSpec(**{**value, "shape": tuple(value["shape"])}) for value in values)


@dataclass(frozen=True)
class PreprocessSpec:
    """How a uint8 RGB image becomes the network's input.

    ``resize="stretch"`` scales both sides to the input size; ``"crop"`` scales until ``size / crop_pct`` is covered and
    takes the centre (ImageNet's protocol); ``"keep"`` scales until the whole image fits into the input size, after that
    each side up to a multiple of ``divisor``. ``"letterbox"`` is "keep" with the image in the middle. ``"slide"``
    scales nothing, or the shorter side to ``short_side`` where that is given, and up where an image is smaller than
    the input size; then windows of that size lie ``stride`` (height, width) apart, by default three quarters of it.
    Then ``(x / 255 - mean) / std`` per channel, in the order of ``channels``, NCHW, float32, and zeros where "keep" and
    "letterbox" leave the input free. ``mean`` and ``std`` are in that order, too.

    ``filter`` is whose resampling: Pillow's, with antialias, or OpenCV's bilinear, without. ``rounding`` is of the side
    that follows from the aspect ratio, and of where the crop starts: "floor" is torchvision's (start: half to even),
    "round" PaddleClas's and mmcv's (start: floor). The last three have the defaults of what was written before they
    were known.
    """

    resize: Resize = "stretch"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    crop_pct: float = 0.875
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    filter: Literal["pillow", "opencv"] = "pillow"
    rounding: Literal["floor", "round"] = "floor"
    divisor: int = 1
    channels: Literal["rgb", "bgr"] = "rgb"
    stride: tuple[int, int] | None = None
    short_side: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PreprocessSpec:
        """Rebuild it from plain JSON values. Raises KeyError or TypeError on fields that are missing or are none."""
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in dict(values).items()}
        first = {name: given.pop(name) for name in ("resize", "interpolation", "crop_pct", "mean", "std")}
        return cls(**first, **given)


@dataclass(frozen=True)
class ContractSpec:
    """What goes into a graph and what comes out (docs/contract.md).

    ``name``: ``tensor`` is float32 NCHW, normalised, in and logits out; ``image`` uint8 pixels of the network's size in
    and labels of that size out; ``camera`` the same at the camera's size. ``size`` (height, width) is that of the
    pixels, None for a tensor. ``pixels`` is their layout, ``yuv`` the colours of NV12: a matrix, limited range unless
    it says full. ``label_type`` is that of label maps and class indices, None where none come out; ``confidence`` adds
    a uint8 map; ``top_k`` is how many classes come out of a classifier, else None.
    """

    name: Literal["tensor", "image", "camera"] = "tensor"
    pixels: Pixels = "rgb"
    size: tuple[int, int] | None = None
    yuv: Yuv | None = None
    label_type: LabelType | None = None
    confidence: bool = False
    top_k: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ContractSpec:
        """Rebuild it from values that `hiresvit.schema.CONTRACT` has nothing against."""
        size = values.get("size")
        return cls(**{**values, "size": None if size is None else (size[0], size[1])})


@dataclass(frozen=True)
class AnchorSpec:
    """How the raw outputs of ``detect`` become boxes (docs/detect.md); the conventions are mmdet's.

    Level l has the stride ``strides[l]`` and a map of ceil(H / stride) x ceil(W / stride) cells. In each cell stand A =
    ``len(ratios) * len(scales)`` anchors, ratio by ratio and, of one ratio, scale by scale. The centre of those in cell
    (y, x) is ``(x * stride, y * stride)``, the cell's corner and not its middle; an anchor's width and height are
    ``base * stride * scale / sqrt(ratio)`` and ``base * stride * scale * sqrt(ratio)``, and nothing is rounded: a ratio
    is height over width.

    Outputs of level l: ``logits_STRIDE`` (B, A*K, h, w) before the sigmoid, whose channel ``a*K + k`` is class k of
    anchor a, and ``deltas_STRIDE`` (B, A*4, h, w), channels ``a*4 + (0, 1, 2, 3)`` dx, dy, dw, dh. A delta is
    ``raw * stds + means``; the box has its centre at ``anchor's + (dx * width, dy * height)`` and the size
    ``width * exp(dw), height * exp(dh)``, with dw and dh between -c and c, c = ``|log(size_clamp)|``. It is cut at the
    borders of the picture inside the input, and one without an area is none.

    Of a level the ``per_level`` best pairs of anchor and class with a score above ``score_threshold`` remain, of all
    that class-wise NMS leaves (suppressed is what has an IoU above ``iou_threshold``) the ``max_boxes`` best.
    """

    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    base: float = 4.0
    means: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    size_clamp: float = 0.016
    score_threshold: float = 0.05
    per_level: int = 1000
    iou_threshold: float = 0.5
    max_boxes: int = 100

    @property
    def per_cell(self) -> int:
        """A: how many anchors stand in each cell of a map."""
        return len(self.scales) * len(self.ratios)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AnchorSpec:
        """Rebuild it from values that `hiresvit.schema.ANCHORS` has nothing against."""
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**given)


@dataclass(frozen=True)
class ModelSpec:
    """Which model, for which task, at which size: everything `create_model` needs but the weights.

    ``imgsz`` is (height, width). ``overrides`` are the family's own arguments that differ from the variant's
    table, as sorted (name, value) pairs, so that two specs that mean the same compare equal. ``strides`` are those
    of the maps that ``features`` gives, ``anchors`` what the outputs of ``detect`` mean, None for other tasks.
    """

    name: str
    family: str
    task: Task
    imgsz: tuple[int, int]
    num_classes: int
    preprocess: PreprocessSpec
    overrides: tuple[tuple[str, Any], ...] = ()
    strides: tuple[int, ...] = STRIDES
    anchors: AnchorSpec | None = None

    @property
    def slug(self) -> str:
        """The bundle's folder name, for example ``hrvit_b1-segment-512x512``."""
        return f"{self.name}-{self.task}-{self.imgsz[0]}x{self.imgsz[1]}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        values = asdict(self)
        if self.anchors is None:
            del values["anchors"]  # so that what has none is written as before there were any
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Rebuild a spec from values that `hiresvit.schema.SPEC` has nothing against."""
        overrides = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in values["overrides"])
        height, width = values["imgsz"]
        rest = {
            **values,
            "preprocess": PreprocessSpec.from_json(values["preprocess"]),
            "overrides": overrides,
            "imgsz": (height, width),
            "strides": tuple(values.get("strides", STRIDES)),  # older manifests have none
            "anchors": AnchorSpec.from_json(values["anchors"]) if "anchors" in values else None,
        }
        return cls(**rest)
