"""Checkpoints as users have them, loaded safely and completely.

Read are the authors' ``.pth`` / ``.pth.tar`` files (timm's saver, mmcv's runner, a bare ``state_dict``, with
or without ``module.``) and safetensors. Our models use the authors' key names; only prefixes differ by task:

    ============  ====================================  =======================================
    task          keys of the model                     left out, by name
    ============  ====================================  =======================================
    classify      ``stem.* features.* head.*``          ``decode_head.* auxiliary_head.*``
    segment       ``backbone.* decode_head.*``          ``head.* auxiliary_head.*``
    features      ``stem.* features.*``                 ``head.* decode_head.* auxiliary_head.*``
    ============  ====================================  =======================================

A file is never trusted: PyTorch's ``weights_only`` reader runs no code from it, the zip's checksums are
verified (PyTorch does not), and every key is matched before the first tensor is copied.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path
from hiresvit.spec import Task

Shapes = Mapping[str, tuple[int, ...]]

EMA_ENTRY = "state_dict_ema"
# The official loader's order: the first that is there wins.
ENTRIES = ("state_dict", EMA_ENTRY, "model")

# The key group each task's head lives in, and what to do about a file without it.
TASK_HEAD: dict[Task, str] = {"classify": "head", "segment": "decode_head"}
HEAD_GROUPS = ("head", "decode_head", "auxiliary_head")
NO_HEAD: dict[str, str] = {
    "head": "no classification head (no head.* keys): use --task segment or --task features",
    "decode_head": "no segmentation head (no decode_head.* keys): use --task features, "
    "or weights trained for segmentation with mmseg",
}
# The layers whose first dimension is the number of classes.
CLASSIFIERS = ("head.classifier.", "decode_head.conv_seg.")


class _Ignored:
    """Stands in for a class whose contents we do not need: it takes everything and keeps nothing."""

    def __new__(cls, *_args: object) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# Beside the weights timm's saver keeps the command line's Namespace, and mmcv's runner may keep numpy scalars
# and arrays; PyTorch's weights_only reader rejects both. Allowing these names is safe because none of the
# named classes is ever made: the reader looks a name up in this table and calls what it finds, `_Ignored`.
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name)
    for name in (
        "argparse.Namespace",
        *("numpy.ndarray", "numpy.dtype", "numpy.dtypes.Float64DType", "numpy.dtypes.Int64DType"),
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
    )
]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name (without ``module.``), their origin, and plain facts beside them.

    ``source`` is one of `ENTRIES`, ``"bare"`` or ``"safetensors"``.
    """

    tensors: dict[str, Tensor]
    source: str
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: entry used, tensors copied, key groups left out by name, things to know."""

    source: str
    loaded: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def read_checkpoint(path: Path, *, ema: bool = False) -> Checkpoint:
    """Read the tensors of a PyTorch or safetensors file to CPU memory, running nothing that the file brings.

    ``ema`` asks for the exponential moving average of the weights; otherwise the official loader's order
    counts: ``state_dict``, ``state_dict_ema``, ``model``, else the file itself. A prefix ``module.`` on every
    key is removed. Raises HiresvitError on a file that is missing, damaged, not a checkpoint, or that wants
    to run code.
    """
    magic = _first_bytes(path)
    if magic[8:] == b"{":  # safetensors: eight bytes of length, then JSON
        if ema:
            raise HiresvitError(
                f"{path} has no EMA weights: a safetensors file holds one set; leave out --ema"
            )
        return _read_safetensors(path)
    if magic.startswith(b"PK"):
        _require_checksums(path)
    elif not magic.startswith(b"\x80"):  # a pickle, as PyTorch wrote before it took to zip
        raise HiresvitError(f"{path} is neither a PyTorch checkpoint nor a safetensors file")
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise HiresvitError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return _pick_entry(path, content, ema)


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    task: Task,
    ema: bool = False,
    siblings: Callable[[], Mapping[str, Shapes]] | None = None,
) -> LoadReport:
    """Copy a checkpoint's tensors into ``model``: every one of them or, with HiresvitError, none.

    ``siblings`` gives, when a checkpoint does not fit, the key shapes of other variants for the same task, so
    that the error can say which one it looks like. BatchNorm's ``num_batches_tracked`` may be absent (old
    files); the model then keeps its own.
    """
    checkpoint = read_checkpoint(path, ema=ema)
    tensors, left_out = _for_task(path, checkpoint.tensors, task)
    wanted = model.state_dict()
    misfit = _misfit(tensors, wanted)
    if misfit:
        raise HiresvitError(f"{path}: {_explain(misfit, tensors, wanted, siblings)}")
    tensors = {key: tensor for key, tensor in tensors.items() if key in wanted}
    notes = (*checkpoint.notes, *_conversions(tensors))
    tensors = {key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items()}
    _require_finite(path, tensors)
    model.load_state_dict({**wanted, **tensors}, strict=True)
    return LoadReport(checkpoint.source, len(tensors), left_out, notes)


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
            first = stream.read(9)
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
        notes = (
            "the file has only EMA weights" if only else "the file has EMA weights too: --ema loads them",
        )
    return Checkpoint(_plain_tensors(path, content[source]), source, facts, notes)


def _plain_tensors(path: Path, entry: dict[Any, Any]) -> dict[str, Tensor]:
    """The entry as dense CPU tensors by name, without the ``module.`` of DataParallel."""
    if not any(isinstance(value, Tensor) for value in entry.values()):
        keys = _first([repr(key)[:40] for key in entry])
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


def _for_task(
    path: Path, tensors: dict[str, Tensor], task: Task
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename to the task's layout and drop the heads of other tasks; returns (tensors, groups left out)."""
    head = TASK_HEAD.get(task)
    prefix = "backbone." if task == "segment" else ""
    kept: dict[str, Tensor] = {}
    left_out = set()
    for key, tensor in tensors.items():
        group = key.partition(".")[0]
        if group in HEAD_GROUPS and group != head:
            left_out.add(f"{group}.*")
            continue
        name = key if group == head else prefix + key.removeprefix("backbone.")
        if name in kept:
            raise HiresvitError(f"{path} has {name} twice, with and without 'backbone.': two models in one")
        kept[name] = tensor
    if head and not any(key.startswith(f"{head}.") for key in kept):
        raise HiresvitError(f"{path} has {NO_HEAD[head]}")
    return kept, tuple(sorted(left_out))


def _misfit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What does not match, by kind; empty when every key of both sides is accounted for."""
    groups = {
        "missing": [key for key in wanted if key not in tensors and not _optional(key)],
        "unexpected": [key for key in tensors if key not in wanted and not _optional(key)],
        "of another shape": [
            f"{key} is {_describe(tensor)} and should be {_describe(wanted[key])}"
            for key, tensor in tensors.items()
            if key in wanted and not _alike(tensor, wanted[key])
        ],
    }
    return {what: keys for what, keys in groups.items() if keys}


def _optional(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _explain(
    misfit: Mapping[str, list[str]],
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    siblings: Callable[[], Mapping[str, Shapes]] | None,
) -> str:
    shapes, model_shapes = _shapes(tensors), _shapes(wanted)
    have, want = _classes(shapes), _classes(model_shapes)
    if _same_but_classes(shapes, model_shapes):
        if have != want:
            return f"trained with {have} classes, the model has {want}: pass --num-classes {have}"
    elif siblings:
        alike = [name for name, other in siblings().items() if _same_but_classes(shapes, other)]
        if alike:
            classes = "" if have == want else f" with --num-classes {have}"
            return f"not the model asked for: this looks like {' or '.join(alike)}; ask for that{classes}"
    found = "; ".join(f"{len(keys)} {what} ({_first(keys)})" for what, keys in misfit.items())
    return f"does not fit the model, nothing was loaded: {found}"


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _same_but_classes(one: Shapes, other: Shapes) -> bool:
    """Whether two key tables are one architecture, whatever the number of classes."""
    return _architecture(one) == _architecture(other)


def _architecture(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {
        key: shape[1:] if key.startswith(CLASSIFIERS) else tuple(shape)
        for key, shape in shapes.items()
        if not _optional(key)
    }


def _classes(shapes: Shapes) -> int | None:
    return next((shape[0] for key, shape in shapes.items() if key.startswith(CLASSIFIERS) and shape), None)


def _conversions(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    kinds = Counter(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    return tuple(
        f"{count} tensors converted from {str(dtype).removeprefix('torch.')} to float32"
        for dtype, count in kinds.items()
        if dtype != torch.float32
    )


def _require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise HiresvitError(
            f"{path}: {len(bad)} tensors hold NaN or infinity ({_first(bad)}); the training diverged?"
        )


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _first(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
