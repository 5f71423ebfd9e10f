"""What a bundle says about itself, in manifest.json: written with its own sum, and read back only if that holds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from hiresvit.bundle.stages import STAGES
from hiresvit.errors import ArtefactError, UsageError
from hiresvit.files import atomic_path, sha256_file
from hiresvit.spec import ModelSpec, TensorSpec

SCHEMA_VERSION = 4
OLDEST_SCHEMA = 3  # that is still read
KIND = "hiresvit-bundle"  # there are many manifest.json in the world; this one is ours
MANIFEST = "manifest.json"

# The manifest's own sum is taken over its bytes with zeros in the sum's place: a few lines in any language.
_UNSEALED = "0" * 64


@dataclass(frozen=True)
class Weights:
    """Where the numbers came from: a file's name and sha256, or for example ``fresh, seed 0`` and None."""

    source: str
    sha256: str | None = None

    @property
    def fresh(self) -> bool:
        """Whether they were drawn and nobody trained them."""
        return self.sha256 is None


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle. ``parent`` is the file it was made from; None means the weights."""

    name: str
    role: str
    sha256: str
    bytes: int
    parent: str | None
    parent_sha256: str | None


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        seconds = int(epoch) if epoch else int(time.time())
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}; it must be a number of seconds since 1970") from error


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself; the reports of the stages are plain JSON, numbers finite.

    ``labels`` are names and colours of the classes (`hiresvit.data.labels.labels_to_json`), None where nobody gave any.
    Each file is listed after its parent. ``graphs`` describes each graph, ``engines`` the plan of each graph that has
    one, both by the graph's stage. ``created`` is UTC, from SOURCE_DATE_EPOCH where that is set.
    """

    spec: ModelSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Weights
    files: tuple[FileEntry, ...]
    tools: dict[str, str]
    command: list[str]
    graphs: dict[str, Any] = field(default_factory=dict)
    simplify: Any = None
    fp16: Any = None
    int8: Any = None
    engines: dict[str, Any] = field(default_factory=dict)
    parity: Any = None
    latency: Any = None
    labels: Any = None
    notes: tuple[str, ...] = ()
    created: str = field(default_factory=_now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Rebuild a manifest. Raises KeyError, TypeError or ValueError on values that are not one."""
        values = {"labels": None, **values}  # older manifests have none
        if differing := values.keys() ^ {item.name for item in fields(cls)}:
            raise KeyError(*sorted(differing))
        read = {
            "spec": ModelSpec.from_json(values["spec"]),
            "inputs": _tensor_specs(values["inputs"]),
            "outputs": _tensor_specs(values["outputs"]),
            "weights": Weights(**values["weights"]),
            "files": tuple(FileEntry(**entry) for entry in values["files"]),
            "notes": tuple(values["notes"]),
        }
        return cls(**{**values, **read})


def list_files(folder: Path, weights: Weights) -> tuple[FileEntry, ...]:
    """The stages that are in a folder, each after the one it was made from; without that one it is none."""
    entries: dict[str | None, FileEntry] = {}
    for name, stage in STAGES.items():
        path, parent = folder / stage.file, entries.get(stage.parent)
        if path.exists() and (parent or stage.parent is None):
            size, above = path.stat().st_size, parent or weights
            made_from = parent.name if parent else None
            entries[name] = FileEntry(stage.file, name, sha256_file(path), size, made_from, above.sha256)
    return tuple(entries.values())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``. Raises ValueError or TypeError on values that JSON lacks, such as infinity."""
    envelope = {"kind": KIND, "schema_version": SCHEMA_VERSION, "manifest_sha256": _UNSEALED}
    text = json.dumps({**envelope, **manifest.to_json()}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(text.replace(_UNSEALED, seal).encode())


def read_manifest(path: Path) -> Manifest:
    """Read a ``manifest.json`` of this schema or the one before, and check its own sum and its chain of sums.

    Raises ArtefactError on anything damaged, edited or written by another schema.
    """
    try:
        data = path.read_bytes()
        values = json.loads(data)
    except OSError as error:
        damaged(path, f"cannot be read: {error.strerror}", error)
    except (ValueError, RecursionError) as error:
        damaged(path, "is not valid JSON", error)
    try:
        kind, schema = values.pop("kind"), values.pop("schema_version")
        if kind != KIND:
            damaged(path, f"is of kind {kind!r}, not {KIND!r}")
        if schema not in (OLDEST_SCHEMA, SCHEMA_VERSION):
            _other_schema(path, schema, values)
        _check_seal(path, data, values.pop("manifest_sha256"))
        manifest = Manifest.from_json(values if schema == SCHEMA_VERSION else _from_schema_3(values))
        _check_chain(path, manifest)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        damaged(path, f"is not a manifest ({type(error).__name__}: {error})", error)
    return manifest


def _other_schema(path: Path, schema: object, values: dict[str, Any]) -> NoReturn:
    """Say with which command a bundle of an older schema is made anew."""
    what = f"has schema version {schema!r}, this hiresvit reads {OLDEST_SCHEMA} and {SCHEMA_VERSION}"
    if isinstance(schema, int) and schema < OLDEST_SCHEMA and isinstance(values.get("command"), list):
        typed = " ".join(shlex.join(map(str, values["command"])).split())  # one line, whatever was typed
        if typed:
            raise ArtefactError(f"{path} {what}; make it anew: {typed}")
    damaged(path, what)


def _from_schema_3(values: dict[str, Any]) -> dict[str, Any]:
    """There the engine of FP16 stood alone, that of INT8 in ``int8``, and the graphs were not described."""
    int8 = dict(values["int8"] or {})
    engines = {"fp16": values.pop("engine"), "int8": int8.pop("engine", None)}
    found = {stage: engine for stage, engine in engines.items() if engine}
    return {**values, "int8": int8 or None, "engines": found, "graphs": {}}


def _check_seal(path: Path, data: bytes, seal: object) -> None:
    if not _is_sha256(seal):
        damaged(path, "has no sha256 of its own")
    found = hashlib.sha256(data.replace(str(seal).encode(), _UNSEALED.encode())).hexdigest()
    if found != seal:
        damaged(path, f"was edited: its sha256 is {found[:12]}, it says {str(seal)[:12]}")


def _check_chain(path: Path, manifest: Manifest) -> None:
    """Names and roles are plain and used once, and from each file a chain of sums leads to the weights."""
    sums: dict[str | None, str | None] = {None: manifest.weights.sha256}
    roles = set(STAGES)
    for entry in manifest.files:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", entry.name) or entry.name in (MANIFEST, *sums):
            damaged(path, f"lists {entry.name!r}, which is not a plain file name or there twice")
        if entry.role not in roles or not _is_sha256(entry.sha256):
            damaged(path, f"lists {entry.name} as {entry.role!r}, unknown or there twice, or without a sha256")
        if entry.parent not in sums:
            damaged(path, f"lists {entry.name} as made from {entry.parent!r}, which is not listed before it")
        now, then = sums[entry.parent], entry.parent_sha256
        if now != then:
            parent = entry.parent or "weights"
            damaged(path, f"has {entry.name} made from {parent} {short(then)}, which is {short(now)} here")
        sums[entry.name] = entry.sha256
        roles.remove(entry.role)


def damaged(path: Path, what: str, cause: Exception | None = None) -> NoReturn:
    """Raise ArtefactError about a file of a bundle."""
    raise ArtefactError(f"{path} {what}; export the bundle again or copy it anew") from cause


def short(digest: str | None) -> str:
    """A sum as it is shown."""
    return digest[:12] if digest else "(none)"


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _tensor_specs(values: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**value, "shape": tuple(value["shape"])}) for value in values)
