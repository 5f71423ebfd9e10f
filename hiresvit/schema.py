"""What a JSON file of ours may say: read strictly, and held to a schema as a whole, once, before anything uses it.

A schema is one of JSON Schema's draft 4, in which 64.0 is no integer. Here are the parts that several files have in
common; the whole of each stands beside what writes it: the manifest's in `hiresvit.bundle.schema`, that of a plan's
sidecar in `hiresvit.device.plan`, of a table of ranges in `hiresvit.calibration.table`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NoReturn, get_args

from hiresvit.spec import TASKS, LabelType, Pixels, Resize, Yuv

Schema = dict[str, Any]
Check = Callable[[Any], object]

_DEEPEST = 40  # of lists and objects in each other; what is deeper ends Python's own recursion somewhere later
_LONGEST = 20  # digits of a whole number, 64 bits with a sign
_SHOWN = 200  # characters of what is wrong: it may quote the file

# Control characters of both sets, what turns the direction of text round, what has no width, and halves of a
# character, which no file in UTF-8 has: all of no use in a name, and of much to somebody who wants it to look like
# another.
UNSEEN = "\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb"


def some(kind: Schema) -> Schema:
    """A value or null."""
    return {"anyOf": [{"type": "null"}, kind]} if "type" not in kind else {**kind, "type": [kind["type"], "null"]}


def many(item: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list."""
    return {"type": "array", "items": item, "minItems": least, **({} if most is None else {"maxItems": most})}


def keyed(value: Schema, *keys: str) -> Schema:
    """An object with values of one kind, under any names or only under some ``keys``."""
    pattern = f"^({'|'.join(keys)})$" if keys else str(NAME["pattern"])
    return {"type": "object", "patternProperties": {pattern: value}, "additionalProperties": False}


def record(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, more: bool = False) -> Schema:
    """An object of these fields, and with ``more`` of any others, which nothing reads."""
    every = {**fields, **(optional or {})}
    needed = {"required": list(fields)} if fields else {}
    return {"type": "object", "properties": every, **needed, "additionalProperties": more}


def one_of(*values: str) -> Schema:
    """One of some words."""
    return {"enum": list(values)}


ANY: Schema = {}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
NUMBER: Schema = {"type": "number", "minimum": -1e100, "maximum": 1e100}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "a sha256: 64 hexadecimal digits"}
NAME: Schema = {
    "type": "string",
    "pattern": f"^[^{UNSEEN}]{{0,1000}}$",
    "description": "a name: at most 1000 characters, all of which can be seen",
}
WORD: Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$",
    "description": "a plain name: letters, digits and _ . + -",
}
VERSION: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9}){0,5}[A-Za-z0-9.+-]{0,40}$",
    "description": "a version such as 10.3.0.30",
}
SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": 2**16}  # of a picture's side

TENSOR = record({"name": NAME, "dtype": WORD, "shape": many({"anyOf": [COUNT, NAME]}, most=32)})
_COLOUR = many(NUMBER, 3, 3)
_SPREAD = many({"type": "number", "minimum": 1e-9, "maximum": 1e9}, 3, 3)  # is divided by
PREPROCESS = record(
    {
        "resize": one_of(*get_args(Resize)),
        "interpolation": one_of("bilinear", "bicubic", "lanczos", "nearest", "box", "hamming", "area"),
        "crop_pct": {"type": "number", "minimum": 0.01, "maximum": 1},
        "mean": _COLOUR,
        "std": _SPREAD,
    },
    # What older files do not say
    {
        "filter": one_of("pillow", "opencv"),
        "rounding": one_of("floor", "round"),
        "divisor": SIZE,
        "channels": one_of("rgb", "bgr"),
        "stride": some(many(SIZE, 2, 2)),
        "short_side": some(SIZE),
    },
)
CONTRACT = record(
    {
        "name": one_of("tensor", "image", "camera"),
        "pixels": one_of(*get_args(Pixels)),
        "size": some(many(SIZE, 2, 2)),
        "yuv": {"enum": [None, *get_args(Yuv)]},
        "label_type": {"enum": [None, *get_args(LabelType)]},
        "confidence": FLAG,
        "top_k": some(SIZE),
    }
)
_POSITIVE: Schema = {"type": "number", "minimum": 1e-6, "maximum": 1e6}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
ANCHORS = record(
    {
        "strides": many(SIZE, 1, 16),
        "scales": many(_POSITIVE, 1, 64),
        "ratios": many(_POSITIVE, 1, 64),
        "base": _POSITIVE,
        "means": many(NUMBER, 4, 4),
        "stds": many(_POSITIVE, 4, 4),
        "size_clamp": {"type": "number", "minimum": 1e-6, "maximum": 1},
        "score_threshold": {"type": "number", "minimum": 1e-6, "maximum": 0.999999},
        "per_level": SIZE,
        "iou_threshold": _SHARE,
        "max_boxes": SIZE,
    }
)
_SETTING: Schema = {"anyOf": [{"type": ["null", "boolean"]}, NUMBER, NAME]}
SPEC = record(
    {
        "name": WORD,
        "family": WORD,
        "task": one_of(*TASKS),
        "imgsz": many(SIZE, 2, 2),
        "num_classes": {"type": "integer", "minimum": 0, "maximum": 2**20},
        "preprocess": PREPROCESS,
        "overrides": many(
            {
                "type": "array",
                "items": [WORD, {"anyOf": [*_SETTING["anyOf"], many(_SETTING)]}],
                "minItems": 2,
                "maxItems": 2,
                "additionalItems": False,
            }
        ),
    },
    {"strides": many(SIZE, 1, 16), "anchors": ANCHORS},
)
_SHAPE = many(COUNT, most=32)
_BYTES = dict.fromkeys(("read_bytes", "written_bytes", "weight_bytes"), COUNT)
ENGINE = record(
    {
        "backend": one_of("tensorrt", "tensorrt_rtx"),
        "version": VERSION,
        "platform": NAME,
        "compute_capability": {**NAME, "maxLength": 200},
        "device": some(NAME),
        "plan_bytes": COUNT,
        "plan_sha256": SHA256,
        "build_seconds": {**NUMBER, "minimum": 0},
        "peak_rss_bytes": COUNT,
        "kernel_total": COUNT,
        "kernels": keyed(COUNT),
        "precision": keyed(COUNT),
        "attentions_fused": COUNT,
        "attentions_total": COUNT,
        "activation_bytes": COUNT,
        "weight_bytes": COUNT,
        "scratch_bytes": COUNT,
        "inputs": many(TENSOR),
        "outputs": many(TENSOR),
        "flags": record({}, {"builder_flags": many(NAME)}, more=True),
        "profiles": keyed(many(_SHAPE, 3, 3)),
        "warnings": many(TEXT),
    },
    {"traffic": some(record({**_BYTES, "macs": keyed(COUNT), "untold": COUNT}))},  # older files have none
)


def check_spec(values: Mapping[str, Any]) -> None:
    """Raise ValueError for a spec of `SPEC` whose outputs mean nothing: a detector's without anchors, and others'."""
    if (values["task"] == "detect") != ("anchors" in values):
        raise ValueError(f"spec of task {values['task']} {'has' if 'anchors' in values else 'lacks'} anchors")


def read_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError on what is none, or none that anybody writes for us.

    That is a number that is not finite or has more than 64 bits, a key that is there twice, and lists in lists that
    are deeper than any of ours.
    """
    try:
        values = json.loads(
            data, object_pairs_hook=_object, parse_int=_whole, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        _too_deep()
    level = [values]
    for _ in range(_DEEPEST):
        inside = (item for one in level if isinstance(one, dict | list) for item in _items(one))
        level = [item for item in inside if isinstance(item, dict | list)]
    if level:
        _too_deep()
    return values


def _items(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def compile_schema(schema: Schema) -> Check:
    """A function that raises ValueError, with the place and what is wanted there, unless a value is of a schema."""
    import fastjsonschema

    whole = {"$schema": "http://json-schema.org/draft-04/schema#", **schema}

    @cache
    def compiled(*, detailed: bool) -> Check:
        check: Check = fastjsonschema.compile(whole, use_formats=False, use_default=False, detailed_exceptions=detailed)
        return check

    passes = compiled(detailed=False)

    def check(values: Any) -> None:
        try:
            passes(values)
        except fastjsonschema.JsonSchemaValueException:
            _explain(compiled(detailed=True), values)  # takes three times as long to compile

    return check


def _explain(check: Check, values: Any) -> None:
    """Raise ValueError such as ``spec.imgsz[0] must be integer``."""
    from fastjsonschema import JsonSchemaValueException

    try:
        check(values)
    except JsonSchemaValueException as error:
        definition: Schema = error.definition or {}
        name = error.name or "data"
        said = error.message.removeprefix(name).strip()
        if error.rule == "pattern":
            said = f"must be {definition['description']}"
        where = name.removeprefix("data").removeprefix(".") or "it"
        raise ValueError(f"{where[:_SHOWN]} {said[:_SHOWN]}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("it has a key twice")
    return values


def _whole(text: str) -> int:
    if len(text) > _LONGEST:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has {text[:_LONGEST]}, which is no finite number")
    return value


def _too_deep() -> NoReturn:
    raise ValueError(f"it is nested deeper than {_DEEPEST}")
