"""Files of weights, read safely: tensors by name, and nothing of a file is ever run.

Read are ``.pth`` / ``.pth.tar`` files of PyTorch (timm's saver, mmcv's and mmengine's runners, a bare
``state_dict``, with or without ``module.``), PaddleClas' ``.pdparams`` and safetensors. PyTorch's ``weights_only``
reader looks up every name that a file asks for in a table, and the zip's checksums are verified (PyTorch does not).
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path
from hiresvit.models.weights.paddle import read_pdparams

EMA_ENTRY = "state_dict_ema"
# The official loader's order: the first that is there wins.
ENTRIES = ("state_dict", EMA_ENTRY, "model")

# How a pickle starts that PyTorch wrote before it took to zip: protocol 2 and its magic number.
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


class _Ignored:
    """Stands in for a class whose contents we do not need: it takes everything and keeps nothing."""

    def __new__(cls, *_args: object) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# Beside the weights timm's saver keeps the command line's Namespace, mmcv's runner may keep numpy scalars and arrays,
# and mmengine's its log as HistoryBuffers of arrays; PyTorch's weights_only reader rejects them. Allowing these names
# is safe because none of the named classes is ever made: the reader looks a name up in this table and calls what it
# finds, `_Ignored`. docs/models.md lists them.
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "argparse.Namespace",
        "mmengine.logging.history_buffer.HistoryBuffer",
        *("numpy.ndarray", "numpy.dtype", "numpy.dtypes.Float64DType", "numpy.dtypes.Int64DType"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    )
]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name (without ``module.``), their origin, and plain facts beside them.

    ``source`` is one of `ENTRIES`, ``"bare"``, ``"pdparams"`` or ``"safetensors"``. ``meta`` are the facts with their
    structure, as str, int, float, bool, None, list and dict: what the file has beside its weights by its own keys, and
    what is in its ``meta`` (mmcv, mmengine) lifted up to them: ``CLASSES``, ``PALETTE``, ``dataset_meta``, ``arch``.
    """

    tensors: dict[str, Tensor]
    source: str
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path, *, ema: bool = False) -> Checkpoint:
    """Read the tensors of a PyTorch, PaddleClas or safetensors file to CPU memory, running nothing that it brings.

    ``ema`` asks for the exponential moving average of the weights; otherwise the official loader's order
    counts: ``state_dict``, ``state_dict_ema``, ``model``, else the file itself. A prefix ``module.`` on every
    key is removed. Raises HiresvitError on a file that is missing, damaged, not a checkpoint, or that wants
    to run code.
    """
    magic = _first_bytes(path)
    if magic[8:9] == b"{":  # eight bytes of length, then JSON
        _require_no_ema(path, ema, "safetensors")
        return _read_safetensors(path)
    if magic.startswith(b"PK"):
        _require_checksums(path)
    elif magic.startswith(b"\x80") and magic != LEGACY:  # a pickle that PyTorch did not write
        _require_no_ema(path, ema, ".pdparams")
        return Checkpoint(_plain_tensors(path, read_pdparams(path)), "pdparams", {})
    elif magic != LEGACY:
        raise HiresvitError(f"{path} is neither a PyTorch checkpoint, a .pdparams nor a safetensors file")
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise HiresvitError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return _pick_entry(path, content, ema)


def save_safetensors(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the model's state as safetensors, atomically; equal weights and metadata give equal bytes."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    plain = memoryview(save(tensors))
    start = 8 + int.from_bytes(plain[:8], "little")
    # The library keeps metadata in a hash map and writes it in another order each time, so it is put in here.
    facts = {"__metadata__": dict(sorted(metadata.items()))}
    header = json.dumps({**facts, **json.loads(bytes(plain[8:start]))}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.write(plain[start:])


def _require_no_ema(path: Path, ema: bool, kind: str) -> None:
    if ema:
        raise HiresvitError(f"{path} has no EMA weights: a {kind} file holds one set; leave out --ema")


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(file.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise HiresvitError(f"{path} is not a whole safetensors file: {str(error)[:200]!r}") from error
    return Checkpoint(_plain_tensors(path, tensors), "safetensors", metadata)


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise HiresvitError(f"{path} {what}; give a checkpoint's file")
    try:
        with path.open("rb") as stream:
            first = stream.read(len(LEGACY))
    except OSError as error:
        raise HiresvitError(f"cannot read {path}: {error.strerror}") from error
    if not first:
        raise HiresvitError(f"{path} is empty; copy or download it again")
    return first


def _require_checksums(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes make zipfile raise more than BadZipFile
        raise HiresvitError(f"{path} is truncated or damaged; copy or download it again") from error
    if damaged:
        raise HiresvitError(f"{path} is damaged: {damaged!r} fails its checksum; copy or download it again")


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
            warnings.simplefilter("ignore")  # each is about a file that is then refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises about anything
        raise HiresvitError(f"{path} {_why_not(error)}") from error


def _why_not(error: Exception) -> str:
    text = str(error)
    if name := re.search(r"GLOBAL ([\w.]+)", text):
        return (
            f"was not loaded: it asks for {name[1]}, which is not plain data and could run code; "
            "save only model.state_dict() to a new file"
        )
    if "TorchScript" in text:
        return "is a TorchScript program, not a checkpoint; save model.state_dict() instead"
    if "Unsupported operand" in text:
        return "is a pickle that PyTorch did not write; save it with torch.save and its defaults"
    return f"is truncated, damaged or not a checkpoint ({type(error).__name__}); copy or download it again"


def _pick_entry(path: Path, content: dict[Any, Any], ema: bool) -> Checkpoint:
    present = [name for name in ENTRIES if isinstance(content.get(name), dict)]
    if ema and EMA_ENTRY not in present:
        has = ", ".join(present) or "one bare set"
        raise HiresvitError(f"{path} has no EMA weights ({EMA_ENTRY}), only {has}; leave out --ema")
    if not present:
        return Checkpoint(_plain_tensors(path, content), "bare", {})
    source = EMA_ENTRY if ema else present[0]
    facts = {str(key): str(value) for key, value in content.items() if isinstance(value, (str, int, float))}
    notes: tuple[str, ...] = ()
    if not ema and EMA_ENTRY in present:
        only = source == EMA_ENTRY
        notes = ("the file has only EMA weights" if only else "the file has EMA weights too: --ema loads them",)
    return Checkpoint(_plain_tensors(path, content[source]), source, facts, notes, _meta(content))


def _meta(content: dict[Any, Any]) -> dict[str, Any]:
    inner = content.get("meta")
    lifted = {**content, **(inner if isinstance(inner, dict) else {})}
    return {key: plain for key, value in lifted.items() if (plain := _plain(value)) is not None}


def _plain(value: object) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if isinstance(key, str)}
    return value if isinstance(value, (str, int, float)) else None


def _plain_tensors(path: Path, entry: dict[Any, Any]) -> dict[str, Tensor]:
    """The entry as dense CPU tensors by name, without the ``module.`` of DataParallel."""
    if not any(isinstance(value, Tensor) for value in entry.values()):
        keys = some([repr(key)[:40] for key in entry])
        raise HiresvitError(f"{path} holds no tensors, {f'only {keys}' if keys else 'it is empty'}")
    for key, value in entry.items():
        if not isinstance(key, str) or not key.isprintable():
            raise HiresvitError(f"{path}: {repr(key)[:40]} is not a tensor's name")
        if not isinstance(value, Tensor):
            raise HiresvitError(f"{path}: {key} is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or not value.is_cpu:
            raise HiresvitError(f"{path}: {key} is sparse, quantised or without its data, not a plain tensor")
    prefix = "module." if all(key.startswith("module.") for key in entry) else ""
    return {key.removeprefix(prefix): value.detach() for key, value in entry.items()}


def some(names: list[str]) -> str:
    """The first three names of a list that may be long, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
