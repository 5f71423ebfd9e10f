"""What a bundle says about itself, in manifest.json: written with its own sum, and read back only if that holds."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import reprlib
import shlex
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hiresvit.bundle.schema import check_manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.files import MOST_TEXT, atomic_path, read_regular, sha256_file
from hiresvit.schema import read_json
from hiresvit.spec import ContractSpec, ModelSpec, TensorSpec, tensor_specs

SCHEMA_VERSION = 7
KIND = "hiresvit-bundle"  # there are many manifest.json in the world; this one is ours
MANIFEST = "manifest.json"

# What is wrong with the bundle; anything else that a system says of a file is about who reads it, or about the disk.
_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG})

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


def utc_now() -> str:
    """When something is made, as documents say it: 2026-11-27T18:00:00Z, from SOURCE_DATE_EPOCH where that is set.

    Raises UsageError if that is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        seconds = int(epoch) if epoch else int(time.time())
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}; it must be a number of seconds since 1970") from error


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself; the reports of the stages are plain JSON, as `hiresvit.bundle.schema` says.

    Each file is listed after its parent. ``graphs`` describes each graph, ``engines`` the plan of each graph that has
    one, both by the graph's stage; ``htp`` what is known of each form for Qualcomm's HTP. ``labels`` are the names and
    colours of the classes, where they are known.
    ``created`` is UTC, from SOURCE_DATE_EPOCH where that is set.
    """

    spec: ModelSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Weights
    files: tuple[FileEntry, ...]
    tools: dict[str, str]
    command: list[str]
    contract: ContractSpec = field(default_factory=ContractSpec)
    graphs: dict[str, Any] = field(default_factory=dict)
    simplify: Any = None
    fp16: Any = None
    int8: Any = None
    htp: dict[str, Any] = field(default_factory=dict)
    engines: dict[str, Any] = field(default_factory=dict)
    labels: Any = None
    parity: Any = None
    latency: Any = None
    notes: tuple[str, ...] = ()
    created: str = field(default_factory=utc_now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return {**asdict(self), "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Rebuild a manifest from values that `check_manifest` has nothing against."""
        read = {
            "spec": ModelSpec.from_json(values["spec"]),
            "contract": ContractSpec.from_json(values["contract"]),
            "inputs": tensor_specs(values["inputs"]),
            "outputs": tensor_specs(values["outputs"]),
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
    """Write ``manifest.json``. Raises ArtefactError, before anything is written, on values that it may not hold."""
    try:
        text = json.dumps({**_envelope(), **manifest.to_json()}, indent=2, sort_keys=True, allow_nan=False) + "\n"
        values = read_json(text)
        check_manifest({key: value for key, value in values.items() if key not in _envelope()})
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{folder / MANIFEST} cannot be written: {error}") from error
    seal = hashlib.sha256(text.encode()).hexdigest()
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(text.replace(_UNSEALED, seal).encode())


def _envelope() -> dict[str, Any]:
    """What stands around a `Manifest` in the file."""
    return {"kind": KIND, "schema_version": SCHEMA_VERSION, "manifest_sha256": _UNSEALED}


def read_manifest(path: Path) -> Manifest:
    """Read a ``manifest.json`` of this schema or an older one, and check its own sum, all of it, and the chain of sums.

    Raises ArtefactError on anything damaged, edited or written by another schema.
    """
    try:
        data = read_regular(path, MOST_TEXT)
        values = read_json(data)
    except OSError as error:
        unreadable(path, error)
    except ValueError as error:
        damaged(path, f"is not valid JSON ({error})", error)
    if not isinstance(values, dict):
        damaged(path, "is not a manifest")
    kind, schema, seal = (values.pop(key, None) for key in _envelope())
    if kind != KIND:
        damaged(path, f"is of kind {reprlib.repr(kind)}, not {KIND!r}")
    if schema != SCHEMA_VERSION and schema not in list(_OLDER):
        _other_schema(path, schema, values)
    _check_seal(path, data, seal)
    try:
        for older, convert in _OLDER.items():
            if schema <= older:
                values = convert(values)
        check_manifest(values)
    except (ValueError, KeyError, TypeError) as error:
        damaged(path, f"is damaged: {error}", error)
    manifest = Manifest.from_json(values)
    _check_chain(path, manifest)
    return manifest


def _other_schema(path: Path, schema: object, values: dict[str, Any]) -> NoReturn:
    """Say with which command a bundle of an older schema is made anew."""
    read = ", ".join(map(str, _OLDER))
    what = f"has schema version {reprlib.repr(schema)}, this hiresvit reads {read} and {SCHEMA_VERSION}"
    command = values.get("command")
    if type(schema) is int and schema < SCHEMA_VERSION and isinstance(command, list) and command[:1] == _PROGRAM:
        typed = " ".join(shlex.join(map(str, command)).split())  # one line, whatever was typed
        raise ArtefactError(f"{path} {what}; make it anew: {typed}")
    damaged(path, what)


def _from_schema_3(values: dict[str, Any]) -> dict[str, Any]:
    """There the engine of FP16 stood alone, that of INT8 in ``int8``, and the graphs were not described."""
    int8 = dict(values["int8"] or {})
    engines = {"fp16": values.pop("engine"), "int8": int8.pop("engine", None)}
    found = {stage: engine for stage, engine in engines.items() if engine is not None}
    return {**values, "int8": int8 or None, "engines": found, "graphs": {}}


def _from_schema_4(values: dict[str, Any]) -> dict[str, Any]:
    """There nothing was said of the classes."""
    return {**values, "labels": None}


def _from_schema_5(values: dict[str, Any]) -> dict[str, Any]:
    """There was one contract."""
    return {**values, "contract": asdict(ContractSpec())}


def _from_schema_6(values: dict[str, Any]) -> dict[str, Any]:
    """There nothing was made for Qualcomm's HTP."""
    return {**values, "htp": {}}


_PROGRAM = ["hiresvit"]
# What makes of a schema the next one.
_OLDER = {3: _from_schema_3, 4: _from_schema_4, 5: _from_schema_5, 6: _from_schema_6}


def _check_seal(path: Path, data: bytes, seal: object) -> None:
    if not isinstance(seal, str) or len(seal) != len(_UNSEALED):
        damaged(path, "has no sha256 of its own")
    found = hashlib.sha256(data.replace(seal.encode("utf-8", "replace"), _UNSEALED.encode())).hexdigest()
    if found != seal:
        damaged(path, f"was edited: its sha256 is {found[:12]}, it says {seal[:12]}")


def _check_chain(path: Path, manifest: Manifest) -> None:
    """Names and roles are there once, and from each file a chain of sums leads to the weights."""
    sums: dict[str | None, str | None] = {None: manifest.weights.sha256}
    roles = set(STAGES)
    for entry in manifest.files:
        if entry.name in (MANIFEST, *sums):
            damaged(path, f"lists {entry.name!r}, which is the manifest or there twice")
        if entry.role not in roles:
            damaged(path, f"lists {entry.name} as {entry.role!r}, unknown or there twice")
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


def unreadable(path: Path, error: OSError) -> NoReturn:
    """Raise ArtefactError for a file of a bundle that is not there, HiresvitError for one that may not be read."""
    if error.errno in _DAMAGE:
        damaged(path, f"cannot be read: {error.strerror}", error)
    raise HiresvitError(f"cannot read {path}: {error.strerror}") from error


def short(digest: str | None) -> str:
    """A sum as it is shown."""
    return digest[:12] if digest else "(none)"
