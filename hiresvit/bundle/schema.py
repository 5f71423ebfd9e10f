"""What manifest.json may say: the schema of a `hiresvit.bundle.manifest.Manifest` as JSON, explained in docs/bundle.md.

What a report of a stage says beyond what is printed of it is left open: nothing here reads it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from hiresvit.bundle.stages import GRAPHS
from hiresvit.schema import (
    CONTRACT,
    COUNT,
    ENGINE,
    FLAG,
    NAME,
    NUMBER,
    SHA256,
    SPEC,
    TENSOR,
    TEXT,
    WORD,
    Check,
    check_spec,
    compile_schema,
    keyed,
    many,
    one_of,
    record,
    some,
)
from hiresvit.spec import HTP_FORMS, TASKS

_LOSS = record({"name": NAME, "count": COUNT, "total": COUNT, "extreme": NUMBER})
_RANGE = {
    "headroom": some(
        record({"share": NUMBER, "max_abs": NUMBER, "tensor": NAME, "module": some(NAME), "images": COUNT}, more=True)
    ),
    "underflow": many(record({"tensor": NAME, "module": some(NAME), "max_abs": NUMBER}, more=True)),
}
_FP16 = record(
    {
        "nodes_fp16": COUNT,
        "nodes_fp32": COUNT,
        "casts": COUNT,
        "subnormal": COUNT,
        "overflow": many(_LOSS),
        "flushed": many(_LOSS),
    },
    {
        **_RANGE,
        # Of schema 4 and before
        "activation_hazards": many(record({"hazard": TEXT, "name": NAME, "max_abs": NUMBER}, more=True)),
    },
    more=True,
)
_ROWS = record({"fp32": NUMBER, "fp16": NUMBER, "int8": NUMBER})
_MODULE = record({"module": NAME, "drop": NUMBER, "sqnr_db": some(NUMBER), "share": NUMBER}, more=True)
_CALIBRATION = record(
    {
        "source": TEXT,
        "asked": COUNT,
        "images": COUNT,
        "skipped": many(TEXT),
        "small": COUNT,
        "method": WORD,
        "tensors": COUNT,
        "dead": many(NAME),
    },
    more=True,
)
_INT8 = record(
    {
        "calibration": _CALIBRATION,
        "policy": record({"keep": many(NAME)}, more=True),
        "quantize": record(
            {
                "sites_int8": COUNT,
                "sites_fp16": keyed(COUNT),
                "macs_total": COUNT,
                "macs_share": NUMBER,
                "macs_fp16": keyed(COUNT),
                "attentions_int8": COUNT,
                "attentions_fp16": keyed(COUNT),
            },
            more=True,
        ),
    },
    {
        "sensitivity": record({"modules": many(_MODULE)}, more=True),
        "fallback": record({"kept": many(NAME), "max_drop": NUMBER, "tried": COUNT}, more=True),
        "accuracy": record({"metric": TEXT, "data": TEXT, "images": COUNT, "rows": _ROWS}, more=True),
        "decision": record(
            {"recommended": some(one_of("fp16", "int8")), "latency": some({"type": "object"})}, more=True
        ),
        "verdict": many(TEXT),
        **_RANGE,
    },
    more=True,
)
_GRAPH = record(
    {
        "stage": some(NAME),
        "opset": some(COUNT),
        "nodes": some(COUNT),
        "operators": some(keyed(COUNT)),
        "attentions": some(COUNT),
        "bytes": COUNT,
    },
    more=True,
)
MEASURES = record(
    {
        "name": NAME,
        "max_abs": some(NUMBER),
        "cosine": some(NUMBER),
        "sqnr_db": some(NUMBER),
        "agreement": some(NUMBER),
        "exact": FLAG,
        "non_finite": COUNT,
    },
    more=True,
)
_GATE = record({"min_sqnr_db": NUMBER, "min_cosine": NUMBER, "min_agreement": NUMBER})
# By form. ``changes`` and what was quantized say what was done; ``emulated`` is null where nothing was computed, and
# never a time.
_HTP = record(
    {
        "chip": record({"name": WORD, "title": TEXT, "part": WORD, "soc_model": COUNT, "arch": COUNT}),
        "emulated": some(
            record(
                {
                    "imgsz": many(COUNT, 2, 2),
                    "images": COUNT,
                    "version": TEXT,
                    "gate": _GATE,
                    "report": record({"outputs": many(MEASURES)}, more=True),
                },
                more=True,
            )
        ),
        "refused": many(record({"node": NAME, "module": some(NAME), "op": NAME, "reason": TEXT}, more=True)),
    },
    {
        "changes": record({}, dict.fromkeys(("gelus", "masks", "batch_norms"), COUNT), more=True),
        "calibration": _CALIBRATION,
        "quantize": record({}, {"tensors": keyed(COUNT), "layers": many(record({}, more=True))}, more=True),
        "wide": many(NAME),
        "sensitivity": record({"modules": many(_MODULE)}, more=True),
        "fallback": record({"kept": many(NAME), "max_drop": NUMBER, "tried": COUNT}, more=True),
        "accuracy": record({"metric": TEXT, "data": TEXT, "images": COUNT, "rows": keyed(NUMBER)}, more=True),
    },
    more=True,
)
_COMPARED = record(
    {"stage": NAME, "gate": some(_GATE), "report": record({"outputs": many(MEASURES)}, more=True)}, more=True
)
_TIMES = {"h2d_ms": some(NUMBER), "d2h_ms": some(NUMBER), "gpu_compute_ms": some(NUMBER)}
_SIDE = record(
    {
        **dict.fromkeys(("median_ms", "p90_ms", "p99_ms", "cv_percent", "throughput"), NUMBER),
        "calls": COUNT,
        "warnings": many(TEXT),
    },
    _TIMES,
    more=True,
)
_RATIO = record({"median": NUMBER, "p10": NUMBER, "p90": NUMBER})
_LABELS = record(
    {
        "names": many(NAME, 1),
        "colours": many(many({"type": "integer", "minimum": 0, "maximum": 255}, 3, 3), 1),
        "source": NAME,
    }
)
_FILE = record(
    {
        "name": WORD,
        "role": WORD,
        "sha256": SHA256,
        "bytes": COUNT,
        "parent": some(WORD),
        "parent_sha256": some(SHA256),
    }
)
# How far the answers behind a contract are apart: of feature maps as tensors are, of labels and classes by agreement.
_ANSWER_GATE = record(
    {"min_agreement": NUMBER}, {"max_apart": some(NUMBER), "min_sqnr_db": NUMBER, "min_cosine": NUMBER}
)
_ANSWERS = record(
    {},
    {
        "outputs": many(MEASURES),
        "unit": one_of("pixels", "pictures"),
        "answers": COUNT,
        "differing": COUNT,
        "agreement": NUMBER,
        "apart": some(NUMBER),
        "levels": some(COUNT),
    },
    more=True,
)
_CONTRACT_PARITY = record(
    {
        "pictures": many(WORD, 1),
        "stages": many(record({"stage": NAME, "gate": _ANSWER_GATE, "report": _ANSWERS}, more=True)),
    },
    more=True,
)
MANIFEST_SCHEMA = record(
    {
        "spec": SPEC,
        "contract": CONTRACT,
        "inputs": many(TENSOR, 1),
        "outputs": many(TENSOR, 1),
        "weights": record({"source": TEXT, "sha256": some(SHA256)}),
        "files": many(_FILE),
        "tools": keyed(TEXT),
        "command": many(TEXT),
        "graphs": keyed(_GRAPH, *GRAPHS),
        "simplify": some(record({"nodes_before": COUNT, "nodes_after": COUNT, "rolled_back": some(TEXT)}, more=True)),
        "fp16": some(_FP16),
        "int8": some(_INT8),
        "htp": keyed(_HTP, *HTP_FORMS),
        "engines": keyed(ENGINE, "fp16", "int8"),
        "labels": some(_LABELS),
        "parity": some(
            record(
                {"images": COUNT, "stages": many(_COMPARED)},
                {"task": one_of(*TASKS), "reference": NAME, "contract": _CONTRACT_PARITY},
                more=True,
            )
        ),
        "latency": some(record({"threads": COUNT, "sides": keyed(_SIDE), "ratios": keyed(_RATIO)}, more=True)),
        "notes": many(TEXT),
        "created": NAME,
    }
)


def check_manifest(values: Any) -> None:
    """Raise ValueError, with the place, on values that are no manifest."""
    _check()(values)
    check_spec(values["spec"])
    count, labels = values["spec"]["num_classes"], values["labels"]
    if labels and not len(labels["names"]) == len(labels["colours"]) == count:
        raise ValueError(f"labels must have a name and a colour for each of {count} classes")


@cache
def _check() -> Check:
    return compile_schema(MANIFEST_SCHEMA)
