"""The calibration table: which range each tensor gets in INT8, and what the ranges were measured on.

It belongs to one graph, one set of images and one preprocessing, and says so with hashes; `require_match` holds it
to that before anything is built from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from onnx import ModelProto

from hiresvit.calibration.observers import METHODS, Method
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.files import MOST_TEXT, atomic_path, naming_source, read_regular
from hiresvit.graph.file import require_weights
from hiresvit.schema import COUNT, NAME, TEXT, Check, compile_schema, keyed, many, one_of, read_json, record
from hiresvit.spec import PreprocessSpec

SCHEMA_VERSION = 2
KIND = "hiresvit-calibration"

_LARGEST = 3.5e38  # of a tensor in FP32


@dataclass(frozen=True)
class CalibrationTable:
    """``amax``: FP32 tensor of the graph to the magnitude that the method keeps, over 0; TensorRT stores it as 127.

    ``ranges`` are lowest and highest value of each as they were measured: 16 bits keep all of it, 8 bits that
    asymmetric range cut at ``amax`` on either side. A table of version 1 has none, and serves TensorRT only. ``dead``
    names the tensors that were 0 on every image; their amax says nothing. ``graph`` is the `graph_digest`, ``data`` the
    digest of the images as their reader gives it, ``preprocess`` a `PreprocessSpec` as plain JSON.
    """

    method: Method
    amax: Mapping[str, float]
    dead: tuple[str, ...]
    images: int
    graph: str
    data: str
    preprocess: Mapping[str, Any]
    tools: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return {"kind": KIND, **asdict(self), "dead": list(self.dead)}

    @classmethod
    def from_json(cls, values: Any) -> CalibrationTable:
        """Rebuild a table. Raises ValueError, with the place, on values that are not one."""
        _table_check()(values)
        ranges = {name: (lowest, highest) for name, (lowest, highest) in values.get("ranges", {}).items()}
        fields = {key: value for key, value in values.items() if key not in ("kind", "schema_version")}
        table = cls(**fields | {"dead": tuple(values["dead"]), "ranges": ranges})
        if unknown := set(table.dead) - table.amax.keys():
            raise ValueError(f"{min(unknown)!r} is dead and has no amax")
        if ranges and (odd := ranges.keys() ^ table.amax.keys()):
            raise ValueError(f"{min(odd)!r} has an amax or a range, and not both")
        if crossed := [name for name, (lowest, highest) in ranges.items() if lowest > highest]:
            raise ValueError(f"the range of {crossed[0]!r} ends before it begins")
        return table

    def save(self, path: Path) -> None:
        """Write it as JSON, sorted and indented: the whole file or nothing. Raises HiresvitError if it cannot."""
        text = json.dumps(self.to_json(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def load_table(path: Path) -> CalibrationTable:
    """Read a table. Raises HiresvitError where there is none, ArtefactError on a damaged one or another schema."""
    with naming_source(path):
        if not path.is_file():
            raise HiresvitError(f"{path}: no such file; give a table that `hiresvit calibrate` wrote")
        text = read_regular(path, MOST_TEXT)
    try:
        return CalibrationTable.from_json(read_json(text))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ArtefactError(f"{path}: not a calibration table ({reason[:200]}); calibrate again") from error


def require_match(table: CalibrationTable, *, graph: str, data: str | None, preprocess: PreprocessSpec) -> None:
    """Raise ArtefactError, with both hashes, unless the table was made from this graph, data and preprocessing.

    ``data`` is None where the images are not at hand.
    """
    wanted = preprocess_json(preprocess)
    had = preprocess_json(PreprocessSpec()) | dict(table.preprocess)  # an older table lacks what was not known then
    names = [name for name in sorted({*had, *wanted}) if had.get(name) != wanted.get(name)]
    rows = (
        ("graph", table.graph, graph, ""),
        ("data", table.data, table.data if data is None else data, ""),
        ("preprocessing", _digest(had), _digest(wanted), f" ({', '.join(names)})"),
    )
    if differing := [f"{what} {then[:12]} and not {now[:12]}{more}" for what, then, now, more in rows if then != now]:
        raise ArtefactError(f"the calibration table is stale, it was made from {', '.join(differing)}; calibrate again")


def graph_digest(model: ModelProto) -> str:
    """The sha256 of what a graph computes and of its names: no metadata, producer, documentation or shapes inferred.

    Raises UsageError if the weights are outside the proto, where they would not count.
    """
    require_weights(model)
    bare = ModelProto()
    bare.CopyFrom(model)
    for extra in ("metadata_props", "producer_name", "producer_version", "model_version", "doc_string"):
        bare.ClearField(extra)
    graph = bare.graph
    graph.ClearField("value_info")
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def preprocess_json(spec: PreprocessSpec) -> dict[str, Any]:
    """A spec as it looks after a way through JSON, with lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return plain


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@cache
def _table_check() -> Check:
    """A kind and a version that are others are as wrong as any field."""
    magnitude = {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": _LARGEST}
    end = {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}
    return compile_schema(
        record(
            {
                "kind": one_of(KIND),
                "schema_version": {"enum": [1, SCHEMA_VERSION]},
                "method": one_of(*METHODS),
                "amax": {"type": "object", "additionalProperties": magnitude},
                "dead": many(TEXT),
                "images": {**COUNT, "minimum": 1},
                "graph": {**NAME, "minLength": 1},
                "data": {**NAME, "minLength": 1},
                "preprocess": {"type": "object"},
                "tools": keyed(TEXT),
            },
            {"ranges": {"type": "object", "additionalProperties": many(end, 2, 2)}},  # version 1 has none
        )
    )
