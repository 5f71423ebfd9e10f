"""What the ONNX file of a compiled context says of it: the chip, Qualcomm's version, and the file beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hiresvit.device.chips import Chip, chip_of
from hiresvit.device.context import read_sidecar, require_sums
from hiresvit.device.qnn_api import COMPATIBILITY, installed_version, qairt_version
from hiresvit.errors import ArtefactError
from hiresvit.wire import nodes_and_metadata

OPERATOR = "EPContext"
_SAYS = re.compile(r"v\d+:\d+:(?P<qairt>[\d.]+):[\d.]+:(?P<arch>\d+):(?P<soc_model>\d+):(?P<vtcm>\d+):")
_NAME = re.compile(r"[^\0-\37]{1,255}")  # else it is the context itself


@dataclass(frozen=True)
class Context:
    """``binary`` is the file that holds it, None where that is in the ONNX file; ``qairt`` what compiled it."""

    chip: Chip
    qairt: str
    binary: Path | None
    on_cpu: int
    """How many nodes the CPU computes, beside what is compiled."""


def read_context(path: Path) -> Context | None:
    """Of an ONNX file; None for one that is a graph of its own.

    Raises ArtefactError for a context that does not say its chip or version, is of a chip that is not in the table,
    lacks the file beside it, has another there than its sidecar says, or was compiled by a later version than the one
    that is here, which could not load it.
    """
    nodes, metadata = nodes_and_metadata(path)
    found = [texts for operator, texts in nodes if operator == OPERATOR]
    if not found:
        return None
    said = _said(path, metadata)
    chip = chip_of(int(said["soc_model"]))
    if chip is None:
        number = said["soc_model"]
        raise ArtefactError(
            f"{path} was compiled for soc_model {number}, of which hiresvit knows no chip; build it again"
        )
    here = qairt_version()
    if here is not None and _numbers(said["qairt"]) > _numbers(here):
        raise ArtefactError(
            f"{path} was compiled by QAIRT {said['qairt']}, and onnxruntime-qnn {installed_version()} has {here}, which"
            " loads none of a later one: install a later onnxruntime-qnn, or build it again here"
        )
    name = found[0].get("ep_cache_context", "")
    binary = path.parent / name if _NAME.fullmatch(name) else None
    if binary is not None and not binary.is_file():
        raise ArtefactError(f"{binary} is missing: {path.name} only names it; copy both, side by side")
    if binary is not None and (sidecar := read_sidecar(path)) is not None:
        require_sums(path, binary, sidecar)
    return Context(chip, said["qairt"], binary, len(nodes) - len(found))


def read_context_chip(path: Path) -> tuple[int, int, int | None]:
    """What was really compiled for, as the ONNX file of a context says it: soc_model, arch and VTCM in MiB.

    VTCM is None where the compiler was not told. Raises ArtefactError for a file that does not say it.
    """
    said = _said(path, nodes_and_metadata(path)[1])
    return int(said["soc_model"]), int(said["arch"]), int(said["vtcm"]) or None


def _said(path: Path, metadata: Mapping[str, str]) -> re.Match[str]:
    if found := _SAYS.match(metadata.get(COMPATIBILITY, "")):
        return found
    raise ArtefactError(f"{path} does not say for which chip it was compiled; build it again")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
