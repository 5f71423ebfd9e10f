"""What a package is made of: a bundle, the graphs that go into it, and what to export where its contract does not fit.

Nothing here reads a graph, so that a machine without onnx makes packages, too.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.stages import BUILDABLE, DEFAULT, PLANS, RUNNABLE, STAGES, either
from hiresvit.data.dataset import Labels
from hiresvit.data.labels import assumption, find_labels, labels_of
from hiresvit.errors import ArtefactError, UsageError
from hiresvit.export.contract import untrained_note
from hiresvit.runtime.open import open_runner
from hiresvit.spec import ContractSpec, ModelSpec, TensorSpec, is_raw

MADE_ON_THE_BOARD = "model.plan"
"""What a package calls the engine that is built where it runs."""

# The options of an export that say its contract, and where it goes, with how many words follow each.
_REPLACED = {
    "--contract": 1,
    "--input": 1,
    "--yuv": 1,
    "--label-type": 1,
    "--confidence": 0,
    "--no-confidence": 0,
    "--top-k": 1,
    "--output": 1,
    "-o": 1,
    "--force": 0,
}


@dataclass(frozen=True)
class Shipped:
    """A bundle that is packaged, and the role that ``--graph`` asks for."""

    bundle: Bundle
    role: str | None = None

    @property
    def spec(self) -> ModelSpec:
        return self.bundle.manifest.spec

    @property
    def contract(self) -> ContractSpec:
        return self.bundle.manifest.contract

    @property
    def roles(self) -> tuple[str, ...]:
        """What can run, in the order of the table of stages."""
        there = {entry.role for entry in self.bundle.manifest.files}
        return tuple(role for role in RUNNABLE if role in there)

    def pick(self, order: Sequence[str] = DEFAULT, *, among: Sequence[str] = RUNNABLE) -> str:
        """The role that was asked for, else the first of ``order`` that there is.

        Raises UsageError for one that is none of ``among``, ArtefactError where the bundle has it not.
        """
        if self.role is not None and self.role not in among:
            raise UsageError(f"--graph {self.role}: this format takes {either(among)}")
        if self.role is None and not any(role in self.roles for role in order):
            raise ArtefactError(f"{self.bundle.folder} has none of {', '.join(order)}; export it again")
        role = self.role or next(role for role in order if role in self.roles)
        self.bundle.path(role)
        return role

    def copy(self, role: str, target: Path) -> None:
        """The file of a role, with any folder above it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.bundle.path(role), target)

    def has_engine(self, role: str) -> bool:
        """Whether a plan is TensorRT's own: TensorRT-RTX's is loaded by nothing else."""
        engine = self.bundle.manifest.engines.get(str(STAGES[role].parent))
        return role in self.roles and engine is not None and engine["backend"] == "tensorrt"

    def pick_for_tensorrt(self, program: str) -> str:
        """`pick` of what TensorRT builds from, or of its own plan where that is asked for; raises as that does."""
        role = self.pick(BUILDABLE, among=(*BUILDABLE, *PLANS))
        self.require_engine(role, program)
        return role

    def require_engine(self, role: str, program: str) -> None:
        """Raise UsageError for a plan of TensorRT-RTX, which ``program`` cannot load."""
        if role in PLANS and not self.has_engine(role):
            raise UsageError(
                f"--graph {role}: TensorRT-RTX made this plan, and {program} loads TensorRT's; leave it out"
            )

    def copy_engine(self, role: str, folder: Path) -> str:
        """The graph or plan of a role, and what is to be done with it on the board, for a README."""
        if role in PLANS:
            self.copy(role, folder / MADE_ON_THE_BOARD)
            return f"`{MADE_ON_THE_BOARD}` is the bundle's plan; it runs with the TensorRT and on the GPU of its build."
        self.copy(role, folder / "model.onnx")
        return (
            "Build the engine with the board's own TensorRT. The types in the graph are its precision, so nothing else"
            " is asked of the builder; one that is not strongly typed would not keep them.\n\n"
            f"```sh\ntrtexec --onnx=model.onnx --stronglyTyped --saveEngine={MADE_ON_THE_BOARD}\n```"
        )

    def tensors(self, role: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of a role's file: those of the manifest, unless its float types may be others."""
        manifest = self.bundle.manifest
        if self.contract.name != "tensor" or role in DEFAULT:
            return manifest.inputs, manifest.outputs
        if role in PLANS:
            engine = manifest.engines[str(STAGES[role].parent)]
            types = {tensor["name"]: tensor["dtype"] for tensor in (*engine["inputs"], *engine["outputs"])}
        else:
            with open_runner(self.bundle.path(role), threads=1) as runner:
                types = {tensor.name: tensor.dtype for tensor in (*runner.inputs, *runner.outputs)}
        inputs, outputs = (
            tuple(replace(one, dtype=types.get(one.name, one.dtype)) for one in side)
            for side in (manifest.inputs, manifest.outputs)
        )
        return inputs, outputs

    def class_names(self) -> tuple[str, ...]:
        """Of the manifest, else those that their number suggests."""
        return self._labels().names

    def colours(self) -> list[list[int]]:
        """Red, green and blue of each class."""
        rows: list[list[int]] = self._labels().colours.tolist()
        return rows

    def notes(self) -> list[str]:
        """What is to be said of any package of the bundle: that nobody trained it, or gave its classes names."""
        weights, assumed = self.bundle.manifest.weights, assumption(self._labels())
        untrained = [untrained_note(weights.source)] if weights.fresh else []
        return [*untrained, assumed] if assumed and self.spec.num_classes else untrained

    def _labels(self) -> Labels:
        known = self.bundle.manifest.labels
        return labels_of(known) if known else find_labels(self.spec)

    def require_answer(self) -> None:
        """Raise UsageError for a task whose raw outputs an app reads itself."""
        if is_raw(self.spec.task) and self.spec.task != "detect":
            raise UsageError(
                f"{self.bundle.folder}: task {self.spec.task} has nothing to label; --format triton serves its tensors"
            )

    def require_classes(self, most: int, why: str) -> None:
        """Raise UsageError for more classes than fit."""
        if self.spec.num_classes > most:
            raise UsageError(f"{self.bundle.folder}: {self.spec.num_classes} classes; {why}, so {most} at most")

    def write_class_names(self, target: Path) -> None:
        """A name a line, in the order of the classes."""
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{' '.join(name.split())}\n" for name in self.class_names()), encoding="utf-8")

    def misfit(self, why: str, contract: ContractSpec) -> NoReturn:
        """Raise UsageError that says why the contract does not fit, and the line that exports one which does."""
        raise UsageError(f"{self.bundle.folder}: {why}; export it with: {self.export_line(contract)}")

    def export_line(self, contract: ContractSpec) -> str:
        """The command line that made the bundle, with another contract."""
        words = list(self.bundle.manifest.command)
        if words[:2] != ["hiresvit", "export"] or len(words) < 3:
            size = size_text(self.spec.imgsz)
            words = ["hiresvit", "export", self.spec.name, "--task", self.spec.task, "--imgsz", size]
        return shlex.join([*_without(words), *_contract_words(contract, self.spec)])


def _without(words: Sequence[str]) -> list[str]:
    """A command line without the options that say a contract."""
    kept, left = [], list(words)
    while left:
        word = left.pop(0)
        option, given, _ = word.partition("=")
        if option not in _REPLACED:
            kept.append(word)
            continue
        if not given:
            values, left = left[: _REPLACED[option]], left[_REPLACED[option] :]
            if option == "--contract" and values == ["camera"]:
                left = left[1:]
    return kept


def _contract_words(contract: ContractSpec, spec: ModelSpec) -> list[str]:
    if contract.name == "tensor":
        return ["--contract", "tensor"]
    camera = contract.name == "camera" and contract.size
    words = ["--contract", f"camera:{size_text(contract.size or ())}" if camera else contract.name]
    if contract.pixels != "rgb":
        words += ["--input", contract.pixels]
    if contract.yuv:
        words += ["--yuv", contract.yuv]
    if contract.label_type and contract.label_type != {"segment": "uint8", "classify": "int32"}.get(spec.task):
        words += ["--label-type", contract.label_type]
    if contract.confidence:
        words.append("--confidence")
    return words


def fill(template: str, **values: object) -> str:
    """A text of ``templates/`` with each ``@{name}`` replaced; each value must be used."""
    text = (files("hiresvit.workflows.package") / "templates" / template).read_text(encoding="utf-8")
    used = set(re.findall(r"@\{(\w+)\}", text))
    if used != values.keys():
        raise KeyError(f"{template} and its values differ in {sorted(used ^ values.keys())}")
    return re.sub(r"@\{(\w+)\}", lambda found: str(values[found[1]]), text)


def size_text(size: Sequence[int]) -> str:
    """``1080x1920``: height and width."""
    return "x".join(map(str, size))
