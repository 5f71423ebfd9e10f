"""What a page says of a sweep: the schema of its ``sweep``, which docs/report.md explains."""

from __future__ import annotations

from hiresvit.schema import COUNT, FLAG, NUMBER, SHA256, TEXT, many, record, some

_RAN = dict.fromkeys(("worker", "version", "started"), TEXT)
_SPAN = {"value": NUMBER, "low": some(NUMBER), "high": some(NUMBER)}
_CODE = {"type": "integer"}
_GROUP = dict.fromkeys(("task", "yardstick", "metric", "mode"), TEXT)
_ACCURACY = record(
    {
        **_SPAN,
        **dict.fromkeys(("metric", "task", "yardstick"), TEXT),
        "complete": FLAG,
        "elsewhere": some(TEXT),
        "sha256": some(SHA256),
        **_RAN,
    }
)
_NUMBERS = ("median_ms", "p90_ms", "p99_ms", "cv_percent", "watts", "joules_per_frame")
_TIME = record(
    {
        "mode": TEXT,
        **dict.fromkeys(_NUMBERS, some(NUMBER)),
        **dict.fromkeys(("emulated", "imitated"), FLAG),
        **dict.fromkeys(("warnings", "throttled"), many(TEXT)),
        **dict.fromkeys(("machine", "kind", "power_mode"), some(TEXT)),
        "sha256": some(SHA256),
        **_RAN,
    }
)
_FAILED = record({**dict.fromkeys(("command", "why"), TEXT), "exit_code": _CODE, **_RAN})
_CELL = record(
    {
        "name": TEXT,
        "axes": record(dict.fromkeys(("model", "size", "precision", "contract", "runner", "device"), TEXT)),
        "trained": some(FLAG),
        "accuracies": many(_ACCURACY),
        "times": many(_TIME),
        "failed": many(_FAILED),
        "missing": many(TEXT),
        "verified": many(record(_RAN)),
    }
)
_POINT = record(
    {
        "cell": COUNT,
        **dict.fromkeys(("name", "worker"), TEXT),
        "median_ms": NUMBER,
        **dict.fromkeys(("p99_ms", "joules_per_frame"), some(NUMBER)),
        **_SPAN,
        "sha256": SHA256,
        "elsewhere": some(TEXT),
        "front": FLAG,
        **dict.fromkeys(("warnings", "alike", "faster"), many(TEXT)),
    }
)
_FAILURE = record(
    {
        **dict.fromkeys(("file", "command", "line", "device", "worker", "version", "why"), TEXT),
        "exit_code": _CODE,
        "attempts": _CODE,
        "cells": many(TEXT, 1),
    }
)
_WORKER = record(
    {
        **dict.fromkeys(("host", "version"), TEXT),
        **dict.fromkeys(("commands", "again"), COUNT),
        "devices": many(TEXT),
        "clock_off_s": some(NUMBER),
    }
)
EXPORTED = record(
    {"weights": record({"source": TEXT, "sha256": some(SHA256)}, more=True)},
    {"files": many(record({"role": TEXT, "sha256": SHA256}, more=True))},
    more=True,
)
"""What is read of the manifest in an export's document."""
SWEEP_SCHEMA = record(
    {
        "files": many(record({"file": TEXT, "rows": COUNT, "cut": FLAG}), 1),
        "devices": many(TEXT),
        "cells": many(_CELL),
        "failures": many(_FAILURE),
        "workers": many(_WORKER),
        "fronts": many(record({"device": TEXT, **_GROUP, "points": many(_POINT, 1)})),
        "best": many(
            record(
                {
                    "device": TEXT,
                    **{key: some(kind) for key, kind in _GROUP.items()},
                    "budget_ms": NUMBER,
                    "fits": FLAG,
                    "point": some(_POINT),
                    "commands": many(TEXT),
                }
            )
        ),
    }
)
