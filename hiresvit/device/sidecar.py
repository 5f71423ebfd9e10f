"""The JSON file beside what was built, of a plan or of a context: how it is written and read."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiresvit.errors import ArtefactError
from hiresvit.files import MOST_TEXT, read_regular
from hiresvit.schema import Check, read_json


def sidecar_document(kind: str, version: int, values: Mapping[str, Any]) -> str:
    """The JSON document."""
    return json.dumps({"kind": kind, "schema_version": version, **values}, indent=1, allow_nan=False) + "\n"


def read_values(path: Path, noun: str, kind: str, version: int, check: Check) -> dict[str, Any] | None:
    """What stands beside a ``noun``, held to its schema; None without a file. Raises ArtefactError for another."""
    again = f"build the {noun} again"
    try:
        values = read_json(read_regular(path, MOST_TEXT))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArtefactError(f"{path} cannot be read as JSON ({reason}); {again}") from error
    if not isinstance(values, dict) or values.pop("kind", None) != kind:
        raise ArtefactError(f"{path} does not describe a {noun}; {again}")
    if (found := values.pop("schema_version", None)) != version:
        said = f"has schema version {reprlib.repr(found)}, this hiresvit reads {version}"
        raise ArtefactError(f"{path} {said}; {again}")
    try:
        check(values)
    except ValueError as error:
        raise ArtefactError(f"{path} does not describe a {noun}: {error}; {again}") from error
    return values
