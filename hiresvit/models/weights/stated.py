"""What a checkpoint says of how its network takes a picture, where its trainer wrote that down.

mmcv's and mmengine's runners put the whole configuration into ``meta`` as Python text, of which only assignments of
plain values and of ``dict(...)`` are read, and nothing is run; timm's saver has the script's ``args``, Lightning
``hyper_parameters``. A file that `hiresvit convert` wrote has the fields themselves.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hiresvit.data.preprocess import check_preprocess
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.preprocessing import changed
from hiresvit.schema import read_json
from hiresvit.spec import PreprocessSpec, Task

PREPROCESS = "hiresvit.preprocess"
_LONGEST = 2**20  # characters of a configuration; mmsegmentation's largest has under fifty thousand
_DEEPEST = 40
_COLOURS = ("mean", "std", "channels")
_Values = Mapping[str, Any]


@dataclass(frozen=True)
class Stated:
    """Fields of `PreprocessSpec`, where in the file they stand, and what is to be said of how it was tested."""

    fields: Mapping[str, Any]
    place: str
    windows: str = ""


def stated_preprocess(
    row: PreprocessSpec, task: Task, meta: _Values, changes: _Values
) -> tuple[PreprocessSpec, tuple[str, ...]]:
    """A family's row, with what a checkpoint's ``meta`` says instead, and with a user's ``changes`` above both.

    Notes say what was taken from the file, and what a trainer wrote and we cannot serve. Raises UsageError as `changed`
    does for the user's, and HiresvitError where the file is ours and damaged.
    """
    base, notes, said = row, [], None
    if (text := meta.get(PREPROCESS)) is not None:
        base, said = _ours(str(text)), Stated({}, "metadata")
    elif said := _of_config(meta, task) or _of_options(meta, task):
        try:
            base = changed(row, task, said.fields)
        except UsageError as error:
            notes.append(f"what its {said.place} says of the size of pictures is left out: {error}")
            base = changed(row, task, {name: said.fields[name] for name in _COLOURS if name in said.fields})
    found = changed(base, task, changes)
    other = [name for name in vars(row) if getattr(base, name) != getattr(row, name) and name not in changes]
    if said and other:
        shown = ", ".join(f"{name} {_shown(getattr(base, name))}" for name in other)
        notes.append(f"how it takes a picture is in its {said.place}: {shown}; taken instead of the family's")
    if said and said.windows and "resize" not in changes:
        notes.append(said.windows)
    return found, tuple(notes)


def _shown(value: Any) -> str:
    return " ".join(f"{part:.6g}" for part in value) if isinstance(value, tuple) else str(value)


def _ours(text: str) -> PreprocessSpec:
    try:
        found = PreprocessSpec.from_json(read_json(text))
        check_preprocess(found)
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise HiresvitError(f"{PREPROCESS} in the metadata is damaged ({error}); convert it again") from error
    return found


def _of_options(meta: _Values, task: Task) -> Stated | None:
    """timm's ``args`` (its script's --mean, --std, --crop-pct and --interpolation), or hyperparameters called alike."""
    for place in ("args", "hyper_parameters"):
        given = meta.get(place)
        if not isinstance(given, Mapping):
            continue
        found = _colours(given, 1)
        if task == "classify":
            crop, between = given.get("crop_pct"), given.get("interpolation")
            found |= {"crop_pct": crop} if isinstance(crop, float) and 0 < crop <= 1 else {}
            found |= {"interpolation": between} if between in ("bilinear", "bicubic") else {}
        if found:
            return Stated(found, place)
    return None


def _of_config(meta: _Values, task: Task) -> Stated | None:
    """The configuration of mmcv's and mmengine's runners: data_preprocessor, img_norm_cfg, test_pipeline, test_cfg."""
    place, text = next(((key, meta[key]) for key in ("cfg", "config") if isinstance(meta.get(key), str)), ("", ""))
    config = parse_config(text)
    model = _dict(config.get("model"))
    pipeline = [*_steps(config.get("test_pipeline"))]
    normalise = [step for step in pipeline if _type(step) == "Normalize"]
    found: dict[str, Any] = {}
    for one in (_dict(model.get("data_preprocessor")), _dict(config.get("data_preprocessor"))):
        # pictures are read as BGR, and either option turns that round
        found = found or _colours(one, 255, any(one.get(key) for key in ("bgr_to_rgb", "rgb_to_bgr", "to_rgb")))
    for one in (*normalise, _dict(config.get("img_norm_cfg"))):
        found = found or _colours(one, 255, one.get("to_rgb", True))
    scaling = next((step for step in pipeline if _type(step) in ("Resize", "AlignResize")), None)
    if task != "classify" and scaling is not None:
        # mmcv 2 stretches unless it is told otherwise, mmsegmentation of mmcv 1 keeps the ratio
        keep = scaling.get("keep_ratio", place == "config")
        between = scaling.get("interpolation", "bilinear")
        found |= {"resize": "keep" if keep else "stretch", "rounding": "round", "interpolation": between}
        found["filter"] = "pillow" if scaling.get("backend") == "pillow" else "opencv"
        if keep:
            found["divisor"] = scaling.get("size_divisor", 32) if _type(scaling) == "AlignResize" else 1
    kept = scaling if scaling and found.get("resize") == "keep" else {}
    windows = _windows(_dict(model.get("test_cfg")), kept) if task == "segment" else ""
    return Stated(found, place, windows) if found or windows else None


def _windows(test: _Values, scaling: _Values) -> str:
    """How it was tested, where that was in windows: the network's size is the user's to choose, so it is only said."""
    crop, stride = _pair(test.get("crop_size")), _pair(test.get("stride"))
    if test.get("mode") != "slide" or crop is None or stride is None:
        return ""
    scale = _pair(scaling.get("scale"))
    short = f" --preprocess short_side={min(scale)}" if scale else ""
    size, step = ("x".join(map(str, pair)) for pair in (crop, stride))
    return f"it was tested in windows: --resize slide --imgsz {size} --preprocess stride={step}{short} does so"


def parse_config(text: str) -> dict[str, Any]:
    """The plain values that a configuration assigns to names; nothing of it is run, and what is not plain is None."""
    if len(text) > _LONGEST:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that a text does not have
            lines = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found = {}
    for line in lines:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            found[line.targets[0].id] = _plain(line.value, _DEEPEST)
    return found


def _plain(node: ast.expr, depth: int) -> Any:
    if depth == 0:
        return None
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(item, depth - 1) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _plain(node.operand, depth - 1)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _plain(word.value, depth - 1) for word in node.keywords if word.arg}
    if isinstance(node, ast.Dict):
        return {key.value: _plain(value, depth - 1) for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)}  # fmt: skip
    return None


def _steps(value: Any, depth: int = 6) -> Iterator[_Values]:
    """The steps of a pipeline and of what they wrap, as MultiScaleFlipAug's transforms, in order."""
    if isinstance(value, list) and depth:
        for item in value:
            yield from _steps(item, depth - 1)
    elif isinstance(value, Mapping):
        yield value
        yield from _steps(value.get("transforms"), depth - 1)


def _type(step: _Values) -> str:
    return str(step.get("type")).rpartition(".")[2]


def _dict(value: Any) -> _Values:
    return value if isinstance(value, Mapping) else {}


def _colours(given: _Values, most: float, rgb: Any = True) -> dict[str, Any]:
    """Mean and standard deviation as fields, of values from 0 to ``most``, or to 255 where there are larger ones."""
    found = {name: _three(given.get(name)) for name in ("mean", "std")}
    known = {name: values for name, values in found.items() if values is not None}
    if not known:
        return {}
    scale = 255 if max(map(max, known.values())) > most else most
    scaled = {name: tuple(round(value / scale, 9) for value in values) for name, values in known.items()}
    return scaled | {"channels": "rgb" if rgb else "bgr"}


def _three(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None
    if not all(type(part) in (int, float) and math.isfinite(part) for part in value):
        return None
    return tuple(map(float, value))


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(part) is int and part > 0 for part in value):
        return value[0], value[1]
    return None
