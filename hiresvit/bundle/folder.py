"""The bundle: one folder that holds what `hiresvit export` made and says where each file came from.

    hrvit_b1-segment-512x512/
      manifest.json      spec, contract, files with their sha256 and their parent's, tools, parity, latency
      fp32.onnx          as exported             parent: the weights
      simplified.onnx                            parent: fp32.onnx
      cpu.onnx           for ONNX Runtime's CPU   parent: simplified.onnx
      fp16.onnx                                  parent: simplified.onnx
      fp16.plan          the built engine        parent: fp16.onnx
      calibration.json   the ranges of INT8      parent: simplified.onnx
      int8.onnx                                  parent: fp16.onnx
      int8.plan          the built engine        parent: int8.onnx
      sensitivity.svg    what each module loses in INT8   parent: int8.onnx
      golden.npz         an input and the output expected for it, replayed by every runtime

`read_bundle` follows the chain of sha256 sums from each file to the weights, so a file that was exchanged, a
plan that was built from another graph and a manifest that was edited are all found. This is integrity, not a
signature: whoever can write the folder can also write a new, consistent manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.files import atomic_path, naming_target, new_parents, sha256_file, temporary_name
from hiresvit.spec import ModelSpec, TensorSpec

SCHEMA_VERSION = 3
KIND = "hiresvit-bundle"  # there are many manifest.json in the world; this one is ours
MANIFEST = "manifest.json"

Role = Literal[
    "fp32",
    "simplified",
    "cpu",
    "fp16",
    "plan",
    "plan_info",
    "calibration",
    "int8",
    "int8_plan",
    "int8_plan_info",
    "sensitivity",
    "golden",
]
Arrays = dict[str, NDArray[Any]]

# The manifest's own sum is taken over its bytes with zeros in the sum's place: a few lines in any language.
_UNSEALED = "0" * 64


@dataclass(frozen=True)
class Weights:
    """Where the numbers came from: a file's name and sha256, or for example ``fresh, seed 0`` and None."""

    source: str
    sha256: str | None = None


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle. ``parent`` is the file it was made from; None means the weights."""

    name: str
    role: Role
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
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {epoch!r}; it must be a number of seconds since 1970"
        ) from error


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself; the reports of the stages are plain JSON, numbers finite.

    Each file is listed after its parent. ``created`` is UTC, from SOURCE_DATE_EPOCH where that is set.
    """

    spec: ModelSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Weights
    files: tuple[FileEntry, ...]
    tools: dict[str, str]
    command: list[str]
    simplify: Any = None
    fp16: Any = None
    engine: Any = None
    int8: Any = None
    parity: Any = None
    latency: Any = None
    notes: tuple[str, ...] = ()
    created: str = field(default_factory=_now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        """Rebuild a manifest. Raises KeyError, TypeError or ValueError on values that are not one."""
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


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: its folder, its manifest, and the names of files in it that nobody listed."""

    folder: Path
    manifest: Manifest
    unlisted: tuple[str, ...]

    def path(self, role: Role) -> Path:
        """The file of a role. Raises ArtefactError if the bundle has none."""
        for entry in self.manifest.files:
            if entry.role == role:
                return self.folder / entry.name
        has = ", ".join(entry.role for entry in self.manifest.files)
        raise ArtefactError(f"{self.folder} has no {role} file, only {has}; export it again with one")


def file_entry(folder: Path, name: str, role: Role, *, parent: FileEntry | Weights) -> FileEntry:
    """Describe the file ``folder / name``, made from ``parent``. Raises OSError if it is missing."""
    path = folder / name
    parent_name = parent.name if isinstance(parent, FileEntry) else None
    return FileEntry(name, role, sha256_file(path), path.stat().st_size, parent_name, parent.sha256)


@contextmanager
def writing_bundle(target: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` to fill; on success it is verified and becomes ``target``.

    On any exception, Ctrl-C and a full disk included, the temporary folder is removed and an existing bundle
    stays as it was. With ``force`` an existing bundle is replaced, but never a folder that holds anything
    else. Raises HiresvitError, before the body runs where that is possible, if ``target`` exists or cannot be
    written, and ArtefactError if the body left something that is not a bundle.
    """
    with naming_target(target):
        target = Path(os.path.realpath(target))  # a link is followed, not replaced
        _require_free(target, force)
        temporary = temporary_name(target)
        with new_parents(target):
            try:
                temporary.mkdir()
                yield temporary
                read_bundle(temporary)
                _require_free(target, force)
                _replace(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``. Raises ValueError or TypeError on values that JSON lacks, such as infinity."""
    envelope = {"kind": KIND, "schema_version": SCHEMA_VERSION, "manifest_sha256": _UNSEALED}
    text = json.dumps({**envelope, **manifest.to_json()}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_bytes(text.replace(_UNSEALED, seal).encode())


def read_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check it: the manifest's own sum, its file names, sizes, parents and the files' sums.

    ``verify=False`` leaves out the last, which reads every byte. Raises HiresvitError where there is no
    folder and ArtefactError on anything damaged, exchanged, edited or written by another schema.
    """
    if not path.is_dir():
        raise HiresvitError(f"{path} is not a bundle folder; give one that `hiresvit export` wrote")
    manifest = _read_manifest(path / MANIFEST)
    for entry in manifest.files:
        _check_file(path, entry, verify)
    listed = {MANIFEST, *(entry.name for entry in manifest.files)}
    return Bundle(path, manifest, tuple(sorted(set(os.listdir(path)) - listed)))


def write_golden(path: Path, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz of ``inputs/NAME`` and ``outputs/NAME``: uncompressed, and equal arrays give equal bytes.

    `numpy.savez` would stamp the time of day into it.
    """
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs/{name}": array for name, array in outputs.items()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in sorted(arrays.items()):
            content = BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            # Neither the time nor the system it was written on: the first day that a zip can hold, and Unix.
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, content.getvalue())


def read_golden(path: Path) -> tuple[Arrays, Arrays]:
    """Read what `write_golden` wrote: (inputs, outputs) by name. Raises ArtefactError if it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise about anything on damaged bytes
        _damaged(path, f"cannot be read ({type(error).__name__})", error)
    inputs, outputs = (
        {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
        for start in ("inputs/", "outputs/")
    )
    if not inputs or not outputs or len(inputs) + len(outputs) != len(arrays):
        _damaged(path, f"holds {sorted(arrays)} instead of inputs/NAME and outputs/NAME")
    return inputs, outputs


def _require_free(target: Path, force: bool) -> None:
    """Refuse a target that exists, unless ``force`` is given and it is a bundle and nothing else."""
    if not os.path.lexists(target):
        return
    try:
        values = json.loads((target / MANIFEST).read_bytes())
        listed = {MANIFEST, *(entry["name"] for entry in values["files"])}
        ours = values["kind"] == KIND
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise HiresvitError(f"{target} exists and is not a bundle; remove it yourself or choose another name")
    if not force:
        raise HiresvitError(f"{target} exists; pass --force to replace it or choose another name")
    with os.scandir(target) as items:
        for item in items:
            if item.name not in listed or not item.is_file(follow_symlinks=False):
                raise HiresvitError(f"{target} also holds {item.name!r}, which --force would delete; move it")


def _replace(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``; what was there is deleted only when the new one is in place."""
    aside = temporary_name(target)
    try:
        if target.exists():
            target.rename(aside)
        temporary.rename(target)
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.exists():
            aside.rename(target)


def _read_manifest(path: Path) -> Manifest:
    try:
        data = path.read_bytes()
        values = json.loads(data)
    except OSError as error:
        _damaged(path, f"cannot be read: {error.strerror}", error)
    except (ValueError, RecursionError) as error:
        _damaged(path, "is not valid JSON", error)
    try:
        kind, schema = values.pop("kind"), values.pop("schema_version")
        if kind != KIND:
            _damaged(path, f"is of kind {kind!r}, not {KIND!r}")
        if schema != SCHEMA_VERSION:
            _damaged(path, f"has schema version {schema!r}, this hiresvit reads {SCHEMA_VERSION}")
        _check_seal(path, data, values.pop("manifest_sha256"))
        manifest = Manifest.from_json(values)
        _check_chain(path, manifest)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        _damaged(path, f"is not a manifest ({type(error).__name__}: {error})", error)
    return manifest


def _check_seal(path: Path, data: bytes, seal: object) -> None:
    if not _is_sha256(seal):
        _damaged(path, "has no sha256 of its own")
    found = hashlib.sha256(data.replace(str(seal).encode(), _UNSEALED.encode())).hexdigest()
    if found != seal:
        _damaged(path, f"was edited: its sha256 is {found[:12]}, it says {str(seal)[:12]}")


def _check_chain(path: Path, manifest: Manifest) -> None:
    """Names and roles are plain and used once, and from each file a chain of sums leads to the weights."""
    sums: dict[str | None, str | None] = {None: manifest.weights.sha256}
    roles = list(get_args(Role))
    for entry in manifest.files:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", entry.name) or entry.name in (MANIFEST, *sums):
            _damaged(path, f"lists {entry.name!r}, which is not a plain file name or there twice")
        if entry.role not in roles or not _is_sha256(entry.sha256):
            _damaged(
                path, f"lists {entry.name} as {entry.role!r}, unknown or there twice, or without a sha256"
            )
        if entry.parent not in sums:
            _damaged(path, f"lists {entry.name} as made from {entry.parent!r}, which is not listed before it")
        now, then = sums[entry.parent], entry.parent_sha256
        if now != then:
            parent = entry.parent or "weights"
            _damaged(path, f"has {entry.name} made from {parent} {_short(then)}, which is {_short(now)} here")
        sums[entry.name] = entry.sha256
        roles.remove(entry.role)


def _check_file(folder: Path, entry: FileEntry, verify: bool) -> None:
    path = folder / entry.name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            _damaged(path, "is a link or a folder, not a file of the bundle")
        if status.st_size != entry.bytes:
            _damaged(path, f"has {status.st_size} bytes, the manifest says {entry.bytes}")
        found = sha256_file(path) if verify else entry.sha256
    except OSError as error:
        _damaged(path, f"cannot be read: {error.strerror}", error)
    if found != entry.sha256:
        _damaged(
            path, f"was changed: its sha256 is {_short(found)}, not the manifest's {_short(entry.sha256)}"
        )


def _damaged(path: Path, what: str, cause: Exception | None = None) -> NoReturn:
    raise ArtefactError(f"{path} {what}; export the bundle again or copy it anew") from cause


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "(none)"


def _tensor_specs(values: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**{**value, "shape": tuple(value["shape"])}) for value in values)
