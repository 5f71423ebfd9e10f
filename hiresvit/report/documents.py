"""What a report reads and what it is: schemas of the documents that commands write with ``-o``, and of its own JSON.

What nothing here reads is left open. docs/report.md explains the fields of a page.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from hiresvit.bundle.schema import MEASURES
from hiresvit.report.accuracy import WORDS
from hiresvit.report.cautions import LEVELS
from hiresvit.report.sweep_schema import EXPORTED, SWEEP_SCHEMA
from hiresvit.report.traffic import BOUND
from hiresvit.schema import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    SHA256,
    TEXT,
    Check,
    Schema,
    compile_schema,
    keyed,
    many,
    one_of,
    record,
    some,
)

RESULTS = ("accuracy", "latency", "parity", "layers", "verify")
"""What a result is about, by the key that it has, in the order in which a page tells it."""
KIND = "hiresvit-report"
SCHEMA_VERSION = 1
MODES = ("call", "frame", "stream", "offline")
STATES = ("same", "weights", "other", "apart")

INTEGER: Schema = {"type": "integer"}


def _by_name(value: Schema) -> Schema:
    """An object under any names: what users call things is not ours to forbid, only to show harmlessly."""
    return {"type": "object", "additionalProperties": value}


_ORIGIN = record(
    {},
    {
        **dict.fromkeys(("file", "role", "bundle", "backend", "version", "device"), some(TEXT)),
        "sha256": some(SHA256),
        "bytes": some(COUNT),
        "threads": some(COUNT),
        "emulated": FLAG,
    },
    more=True,
)
_FAILURE = some(record({"message": TEXT}, {"exit_code": COUNT}, more=True))
_INTERVAL = {"low": some(NUMBER), "high": some(NUMBER)}
_VALUES = keyed(record({"value": some(NUMBER), **_INTERVAL}, more=True), *WORDS)
_DIFFERENCES = keyed(record({"difference": some(NUMBER), **_INTERVAL}, more=True), *WORDS)
_CLASS = record(
    {
        "name": TEXT,
        **dict.fromkeys(("iou", "accuracy", "boundary_f"), some(NUMBER)),
        "share": NUMBER,
        "pixels": COUNT,
    },
    more=True,
)
_ACCURACY = record(
    {
        "dataset": record({"name": TEXT, "pictures": COUNT, "ignore": some(INTEGER)}, more=True),
        "protocol": record(
            {
                **dict.fromkeys(("name", "filter", "scaled", "labels"), TEXT),
                "size": many(COUNT, 2, 2),
                "flip": FLAG,
                "scales": many(NUMBER, 1),
                "notes": many(TEXT),
            },
            more=True,
        ),
        "task": one_of("segment", "classify"),
        "images": COUNT,
        "complete": FLAG,
        "sides": many(
            record(
                {
                    "name": TEXT,
                    "origin": some(_ORIGIN),
                    "failure": _FAILURE,
                    "metrics": _VALUES,
                    "classes": some(many(_CLASS)),
                    "foreign": some(NUMBER),
                    "against": some(
                        record({"metrics": _DIFFERENCES, "agreement": some(NUMBER), "keeps": some(TEXT)}, more=True)
                    ),
                },
                more=True,
            ),
            1,
        ),
        "worst": many(
            record(
                {
                    "picture": TEXT,
                    "agreement": some(NUMBER),
                    "sides": many(record({"name": TEXT, "accuracy": some(NUMBER)}, more=True)),
                    "image": some(TEXT),
                },
                more=True,
            )
        ),
    },
    more=True,
)
_TIMES = ("median_ms", "p90_ms", "p99_ms", "h2d_ms", "gpu_compute_ms", "d2h_ms")
_SIDE = record(
    {"cv_percent": some(NUMBER), "throughput": some(NUMBER), "calls": COUNT, "warnings": many(TEXT)},
    {
        **dict.fromkeys(_TIMES, some(NUMBER)),
        "origin": some(_ORIGIN),
        "samples_ns": some(many({"type": "integer", "minimum": 1})),
        "parts": some(_by_name(some(NUMBER))),
        "stream": some(
            record(
                {
                    **dict.fromkeys(("sent", "missed"), COUNT),
                    "fps": NUMBER,
                    "missed_percent": NUMBER,
                    "mean_fps": some(NUMBER),
                    "jitter_ms": some(record({}, dict.fromkeys(("mean", "max"), some(NUMBER)), more=True)),
                    "queue": record({"mean": NUMBER, "max": NUMBER}, more=True),
                },
                more=True,
            )
        ),
        "roofline": some(BOUND),
        "failure": _FAILURE,
    },
    more=True,
)
_POWER = record(
    {"source": TEXT, "window_s": NUMBER, **dict.fromkeys(("watts", "idle_watts", "joules_per_frame"), some(NUMBER))},
    more=True,
)
_STATE = {"throttled": some(many(TEXT)), "clocks": some(_by_name(record({}, more=True)))}
_LATENCY = record(
    {
        "threads": some(COUNT),
        "sides": _by_name(_SIDE),
        "ratios": _by_name(record(dict.fromkeys(("median", "p10", "p90"), NUMBER), more=True)),
    },
    {
        "mode": one_of(*MODES),
        "complete": FLAG,
        "stopped": some(TEXT),
        "marks": some(many(TEXT)),
        "environment": some(record({}, {**_STATE, "after": some(record({}, _STATE, more=True))}, more=True)),
        "power": some(_by_name(some(_POWER))),
    },
    more=True,
)
_MODULE = record(
    {
        **dict.fromkeys(("module", "kind"), TEXT),
        **dict.fromkeys(("sqnr_db", "max_abs", "cosine", "scale", "clipped", "outliers"), some(NUMBER)),
        "non_finite": COUNT,
        "verdict": {"enum": [None, "scale", "saturation", "nan", "outliers", "everything"]},
    },
    more=True,
)
_NODE = record({**dict.fromkeys(("module", "op"), TEXT), **dict.fromkeys(("reads", "makes"), many(TEXT))}, more=True)
_SMALLEST = record(
    {
        **dict.fromkeys(("file", "arrays"), TEXT),
        "kind": one_of("parts", "refused", "fails"),
        **dict.fromkeys(("output", "message"), some(TEXT)),
        "sqnr_db": some(NUMBER),
        **dict.fromkeys(("steps", "tried"), COUNT),
        "engine": record({"backend": TEXT, "device": TEXT, "emulated": FLAG, "chip": some(TEXT)}, more=True),
        "versions": _by_name(some(TEXT)),
        "nodes": many(_NODE),
    },
    more=True,
)
_LAYERS = record(
    {
        **dict.fromkeys(("reference", "test"), TEXT),
        "images": COUNT,
        "tolerance": NUMBER,
        "modules": many(_MODULE),
        "first": some(_MODULE),
        "unmatched": record(dict.fromkeys(("reference", "test"), many(TEXT)), more=True),
    },
    {
        "failed": many(TEXT),
        "whole": some(record({"output": TEXT, **dict.fromkeys(("sqnr_db", "max_abs"), some(NUMBER))}, more=True)),
        "smallest": some(_SMALLEST),
    },
    more=True,
)
_HEADROOM = record(
    {"share": some(NUMBER), "max_abs": NUMBER, "tensor": TEXT, "module": some(TEXT), "images": COUNT}, more=True
)
_UNDERFLOW = many(record({"tensor": TEXT, "module": some(TEXT), "max_abs": NUMBER}, more=True))
_FP16 = many(record({"graph": TEXT}, {"headroom": some(_HEADROOM), "underflow": _UNDERFLOW}, more=True))
_OUTPUT = {**MEASURES, "properties": {**MEASURES["properties"], "name": TEXT}}
_COMPARED = record(
    {
        "stage": TEXT,
        "gate": some(_by_name(some(NUMBER))),
        "report": record({"outputs": many(_OUTPUT)}, more=True),
    },
    more=True,
)
_ANSWERED = record(
    {
        "stage": TEXT,
        "gate": record({"min_agreement": NUMBER, "max_apart": some(NUMBER)}, more=True),
        "report": record(
            {
                "unit": one_of("pixels", "pictures"),
                **dict.fromkeys(("answers", "differing"), COUNT),
                "agreement": NUMBER,
                "apart": some(NUMBER),
            },
            more=True,
        ),
    },
    more=True,
)
_COMPARISON = {"reference": TEXT, "images": COUNT}
_PARITY: Schema = {
    "anyOf": [
        {
            **record({**_COMPARISON, "stages": many(_COMPARED), "fp16": _FP16}, more=True),
            "not": {"required": ["contract"]},
        },
        record({**_COMPARISON, "stages": many(_ANSWERED), "contract": ANY}, more=True),
    ]
}
_MEASURED_VALUES = _by_name(_by_name(some(NUMBER)))
_APART = dict.fromkeys(("max_abs", "sqnr_db", "agreement"), some(NUMBER))
_VERIFY = record(
    {
        "bundle": TEXT,
        "created": TEXT,
        "hiresvit": some(TEXT),
        "files": many(record({"bytes": COUNT}, more=True)),
        "unlisted": many(TEXT),
        "sides": many(
            record(
                {
                    "graph": TEXT,
                    "runner": some(TEXT),
                    "origin": some({**_ORIGIN, "required": ["backend", "version", "device"]}),
                    "gate": some(_by_name(some(NUMBER))),
                    "report": some(record({}, {**_APART, "outputs": many(record({}, _APART, more=True))}, more=True)),
                    "answer": some(record({"agreement": NUMBER}, more=True)),
                    "verdict": TEXT,
                    "why": some(TEXT),
                },
                more=True,
            )
        ),
        "plans": many(
            record(
                {
                    **dict.fromkeys(("plan", "graph", "verdict"), TEXT),
                    **dict.fromkeys(("backend", "version", "device", "compute_capability", "why"), some(TEXT)),
                },
                more=True,
            )
        ),
        "parity": some(
            record(
                {
                    "stages": many(
                        record(
                            {"stated": _MEASURED_VALUES, "found": _MEASURED_VALUES, "differs": many(TEXT)}, more=True
                        )
                    ),
                    "tolerance": _by_name(NUMBER),
                    "noise_db": NUMBER,
                },
                more=True,
            )
        ),
        "findings": many(record({"message": TEXT}, more=True)),
    },
    more=True,
)
RESULT_SCHEMA = record(
    {"schema_version": COUNT},
    {
        "accuracy": _ACCURACY,
        "latency": _LATENCY,
        "parity": _PARITY,
        "layers": _LAYERS,
        "verify": _VERIFY,
        "manifest": EXPORTED,
        "notes": many(TEXT),
        "error": some(record({"message": TEXT}, {"exit_code": COUNT}, more=True)),
    },
    more=True,
)

_SEEN = some(record({"value": NUMBER, "low": some(NUMBER), "high": some(NUMBER), "metric": TEXT, "result": COUNT}))
_MEASURED = some(
    record(
        {
            "median_ms": NUMBER,
            **dict.fromkeys(("p90_ms", "p99_ms", "throughput", "watts", "joules_per_frame"), some(NUMBER)),
            "result": some(COUNT),
        }
    )
)
_ROW = record(
    {
        "name": TEXT,
        "state": one_of(*STATES),
        "origin": _ORIGIN,
        "machine": some(TEXT),
        "yardstick": some(TEXT),
        "accuracy": _SEEN,
        "modes": {"type": "object", "additionalProperties": _MEASURED},
    }
)
PAGE_SCHEMA = record(
    {
        "schema_version": COUNT,
        "kind": one_of(KIND),
        "hiresvit": TEXT,
        "created": TEXT,
        "warnings": many(record({"level": one_of(*LEVELS), "about": TEXT, "text": TEXT})),
        "glance": many(record({"what": TEXT, "value": some(TEXT), "detail": TEXT})),
        "rows": many(_ROW),
        "pareto": many(
            record(
                {
                    "yardstick": TEXT,
                    "metric": TEXT,
                    "mode": TEXT,
                    "points": many(
                        record(
                            {
                                "name": TEXT,
                                "machine": TEXT,
                                "latency_ms": NUMBER,
                                "value": NUMBER,
                                "low": some(NUMBER),
                                "high": some(NUMBER),
                            }
                        ),
                        1,
                    ),
                }
            )
        ),
        "bundles": many(record({"name": TEXT, "files": many(ANY), "unlisted": many(TEXT)}, more=True)),
        "results": many(
            record(
                {
                    "file": TEXT,
                    "sides": many(
                        record({"origin": _ORIGIN, "state": one_of(*STATES), "bundle": some(TEXT), "role": some(TEXT)})
                    ),
                    "document": RESULT_SCHEMA,
                }
            )
        ),
        "sweep": some(SWEEP_SCHEMA),
    }
)


def check_result(values: Any) -> None:
    """Raise ValueError, with the place, on values that are no result."""
    _compiled("result")(values)
    parity = values.get("verify", {}).get("parity") or {"stages": []}
    for number, stage in enumerate(parity["stages"]):
        if missing := stage["stated"].keys() - stage["found"].keys():
            raise ValueError(f"verify.parity.stages[{number}].found lacks {sorted(missing)[0]}")


def check_page(values: Any) -> None:
    """Raise ValueError, with the place, on values that are no page."""
    _compiled("page")(values)


@cache
def _compiled(name: str) -> Check:
    return compile_schema({"result": RESULT_SCHEMA, "page": PAGE_SCHEMA}[name])
