"""Files of weights, read safely: tensors by name, and nothing of a file is ever run.

Read are ``.pth`` / ``.pth.tar`` / ``.ckpt`` files of PyTorch, zipped or older, pickles of numpy arrays such as Paddle's
``.pdparams``, and safetensors. Which of the tensors are the model's is in `hiresvit.models.weights.entries`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hiresvit.errors import HiresvitError
from hiresvit.files import atomic_path
from hiresvit.kinds import name_file_kind
from hiresvit.models.weights.arrays import MOST_AXES
from hiresvit.models.weights.entries import choose
from hiresvit.models.weights.inert import Persistent, Refused
from hiresvit.models.weights.names import Name
from hiresvit.models.weights.paddle import is_paddle, renamed
from hiresvit.models.weights.stored import Leaf, Stored, open_legacy, open_pickle, open_zip
from hiresvit.models.weights.tree import Tree, facts, flatten, nothing, some

# How a pickle starts that PyTorch wrote before it took to zip: its magic number, in each protocol.
LEGACY = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.|L119547037146038801333356L?\n\.", re.S
)
# How a pickle starts, also in the two protocols that have no mark of their own.
PICKLE = re.compile(rb"\x80[\x01-\x05]|\(?[dl]p?\d*\n|[}\]]q\x00|c[\w.]+\n[\w.]+\n")
SAFETENSORS = re.compile(rb".{6}\x00\x00\{", re.S)  # eight bytes of length, then JSON
OTHERS = ("safetensors", "pdparams")
"""Kinds of files that `Checkpoint.source` names, whatever the entry was."""
WANTED = "give a checkpoint: .pth, .pt, .pth.tar, .ckpt, .pdparams or .safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, without wrappers' prefixes, their origin, and plain facts beside them.

    ``source`` is the entry that they were in, such as ``"state_dict"`` or ``"model_ema"``, or ``"bare"``,
    ``"pdparams"`` or ``"safetensors"``. ``meta`` are the facts with their structure, as str, int, float, bool, None,
    list and dict: what the file has beside its weights by its own keys, and what is in its ``meta`` (mmcv, mmengine)
    lifted up to them: ``CLASSES``, ``PALETTE``, ``dataset_meta``, ``arch``.
    """

    tensors: dict[str, Tensor]
    source: str
    metadata: dict[str, str]
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path, *, ema: bool = False, entry: str | None = None) -> Checkpoint:
    """Read one model's tensors of a PyTorch, Paddle or safetensors file to CPU memory, running nothing that it brings.

    ``ema`` asks for the exponential moving average of the weights, ``entry`` for those under a key of the file, such
    as ``"teacher"``; otherwise what is there alone is taken, and ``state_dict`` and ``model`` before others. Prefixes
    of wrappers are removed. Raises HiresvitError on a file that is missing, damaged, not a checkpoint, that wants to
    run code, or that holds several models of which none was asked for.
    """
    with _reading(path) as (kind, stored):
        return _read(kind, stored, ema=ema, entry=entry)


def read_meta(path: Path) -> Mapping[str, Any]:
    """What a file has beside its weights, as `Checkpoint.meta`, without reading those. Raises as `read_checkpoint`."""
    if path.suffix == ".pdparams":  # nothing but arrays, and no reading without them
        return {}
    with _reading(path) as (_, stored):
        return dict(stored.metadata) or facts(stored.content, flatten(stored))


@contextmanager
def _reading(path: Path) -> Iterator[tuple[str, Stored]]:
    """The opened file and its kind, and whatever goes wrong as HiresvitError."""
    start = _first_bytes(path)
    kind, opened = _opened(path, start)
    try:
        with opened as stored:
            yield kind, stored
    except HiresvitError as error:
        raise HiresvitError(f"{path} {error}") from error
    except Refused as refused:
        raise HiresvitError(f"{path} was not loaded: it {refused}") from refused
    except OSError as error:
        raise HiresvitError(f"cannot read {path}: {error.strerror or type(error).__name__}") from error
    except MemoryError as error:
        raise HiresvitError(f"{path} was not loaded: there is not enough memory") from error
    except Exception as error:  # damaged bytes make the readers raise about anything
        raise HiresvitError(
            f"{path} is truncated, damaged or not a checkpoint ({type(error).__name__}); copy or download it again"
        ) from error


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


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file" if path.exists() else "does not exist"
        raise HiresvitError(f"{path} {what}; give a checkpoint's file")
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise HiresvitError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise HiresvitError(f"{path} is empty; copy or download it again")
    return start


def _opened(path: Path, start: bytes) -> tuple[str, AbstractContextManager[Stored]]:
    if SAFETENSORS.match(start):
        return "safetensors", _open_safetensors(path)
    if start.startswith(b"PK"):
        return "bare", open_zip(path)
    if LEGACY.match(start):
        return "bare", open_legacy(path)
    if PICKLE.match(start):
        return "pdparams" if path.suffix == ".pdparams" else "pickle", open_pickle(path)
    named = name_file_kind(start) or "neither a PyTorch checkpoint, a .pdparams nor a safetensors file"
    raise HiresvitError(f"{path} is {named}; {WANTED}")


def _read(kind: str, stored: Stored, *, ema: bool, entry: str | None) -> Checkpoint:
    tree = flatten(stored)
    if not tree.leaves:
        raise HiresvitError(nothing(stored))
    meta = dict(stored.metadata) or facts(stored.content, tree)
    chosen = choose(tree, ema=ema, entry=entry, swapped=partial(_exchanged, meta, tree))
    tensors = {key: _tensor(key, reader) for key, reader in chosen.leaves.items()}
    source = kind if kind in OTHERS else chosen.source or "bare"
    if kind == "pickle" and is_paddle(tensors, tree.others):
        source = "pdparams"
    if source == "pdparams":
        tensors = renamed(tensors)
    texts = {key: str(value) for key, value in meta.items() if isinstance(value, (str, int, float))}
    return Checkpoint(tensors, source, texts, (*chosen.notes, *_said(tree, stored.named)), meta)


def _tensor(key: str, reader: Leaf) -> Tensor:
    try:
        return reader()
    except Refused as refused:
        raise HiresvitError(f"was not loaded: {key} {refused}") from refused


def _said(tree: Tree, named: Mapping[str, Name]) -> Iterator[str]:
    """What to say about the objects of a file, none of which is made."""
    if tree.whole:
        yield "the model was pickled whole: its weights were read, its code was not run"
    others = [str(name) for name in named.values() if not name.plain and name.module.partition(".")[0] != "torch"]
    if others and not tree.whole:
        yield f"left out, never made: {some(sorted(others))}"


# mmcv's priorities of hooks: what is before NORMAL, 50, is done before the checkpoint is written.
_EARLY = r"'?(HIGHEST|VERY_HIGH|HIGH|ABOVE_NORMAL|[0-4]?\d)\b"


def _exchanged(meta: Mapping[str, Any], tree: Tree, name: str) -> bool:
    """Whether under ``name`` are the weights as trained, which the trainer exchanged with the average when it saved.

    mmengine's EMAHook does so always (``_swap_ema_state_dict``), and so does Lightning's WeightAveraging. mmcv's does
    so after an epoch: what is written is exchanged if the hook comes before the one that writes, by a priority above
    NORMAL; in training by iterations it never is.
    """
    if name == "current_model_state":
        return "averaging_state" in tree.dicts
    if name.rpartition(".")[2] == "ema_state_dict":
        return "message_hub" in meta or "mmengine_version" in meta
    config = str(meta.get("config", "")) if name == "ema_" else ""
    hook = re.search(r"dict\([^()]*E[Mm][Aa]Hook[^()]*\)", config)
    early = hook and re.search(rf"priority['\"]?\s*[=:]\s*{_EARLY}", hook[0])
    return bool(early) and "IterBasedRunner" not in config


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Stored]:
    with safe_open(path, framework="pt") as file:

        def reader(key: str) -> Leaf:
            return lambda: _from_safetensors(file, key)

        content = {key: Persistent(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        yield Stored(content, None, {}, path.stat().st_size, reader, dict(file.metadata() or {}))


def _from_safetensors(file: Any, key: str) -> Tensor:
    one = file.get_slice(key)
    if len(one.get_shape()) > MOST_AXES:
        raise Refused(f"has {len(one.get_shape())} axes")
    if not re.fullmatch(r"F(64|32|16)|BF16|F8_E[45]M[23]|[IU](64|32|16|8)|BOOL|C64", one.get_dtype()):
        raise Refused(f"is of type {one.get_dtype()}, which is no plain number")
    tensor: Tensor = file.get_tensor(key)
    return tensor
