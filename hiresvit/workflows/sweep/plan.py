"""What a sweep is of: a TOML file, read strictly, and the cells that are the product of its lists.

Everything that can be wrong with a plan is said before anything runs, with its line.
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiresvit.errors import HiresvitError, MissingDependency, UsageError, install_line
from hiresvit.files import MOST_TEXT, read_regular
from hiresvit.spec import HTP_FORMS

PRECISIONS = ("fp32", "fp16", "int8", *(f"htp_{form}" for form in HTP_FORMS))
RUNNERS = ("onnxruntime", "openvino", "tensorrt", "qnn")
STEPS = ("verify", "eval", "bench")
AXES = ("model", "size", "precision", "contract", "runner", "device")
_LISTS = {axis: f"{axis}s" for axis in AXES}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class SweptModel:
    """A row of ``models``: a variant's name, and what `hiresvit export` is told of it besides.

    ``label`` names it in the results, by default the variant's name; ``weights`` is a checkpoint's file.
    """

    model: str
    label: str
    weights: Path | None = None
    task: str | None = None
    num_classes: int | None = None
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One point of the product; ``size`` "" is the model's own."""

    model: SweptModel
    size: str
    precision: str
    contract: str
    runner: str
    device: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON values, by axis."""
        values = {axis: getattr(self, axis) for axis in AXES}
        return {**values, "model": self.model.label}


@dataclass(frozen=True)
class SweepPlan:
    """A plan that was read: its cells, and what is the same for all of them.

    ``steps`` are the commands that each cell is given, in order. ``make`` is the class of device on which artefacts are
    made. ``arguments`` are further arguments of a command, by its name.
    """

    cells: tuple[Cell, ...]
    steps: tuple[str, ...]
    make: str
    calib: str = "scenes"
    data: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    timeout_s: float = 3600.0


class PlanError(UsageError):
    """A plan that cannot be carried out; the message has the file and the line."""


def read_plan(path: Path) -> SweepPlan:
    """Read a plan, with every model and size of it checked. Raises PlanError, and HiresvitError for no file."""
    try:
        text = read_regular(path, MOST_TEXT).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise HiresvitError(f"{path} cannot be read as text: {error}") from error
    return _Reader(path, text).plan()


class _Reader:
    """One plan's text: what is said of it names the line that it is of."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.lines = path, text.splitlines()
        self.values = _parse(path, text)

    def plan(self) -> SweepPlan:
        """The plan, checked as a whole."""
        known = {*_LISTS.values(), "exclude", "steps", "make", "calib", "data", "arguments", "timeout_s"}
        for key in self.values:
            if key not in known:
                raise self.wrong(key, f"there is no {key}: a plan has {', '.join(sorted(known))}")
        models = [self.model(row) for row in self.listed("models", None)]
        labels = [model.label for model in models]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise self.wrong(twice, f"two models are called {twice}: give one of them a label of its own")
        axes: dict[str, Sequence[Any]] = {
            "model": models,
            "size": [self.size(value) for value in self.listed("sizes", [""])],
            "precision": [self.word("precisions", value, PRECISIONS) for value in self.listed("precisions", ["fp16"])],
            "contract": [self.contract(value) for value in self.listed("contracts", ["tensor"])],
            "runner": [self.word("runners", value, RUNNERS) for value in self.listed("runners", ["onnxruntime"])],
            "device": [self.device(value) for value in self.listed("devices", ["cpu"])],
        }
        excluded = [self.excluded(rule, axes) for rule in self.values.get("exclude", [])]
        cells = [Cell(*point) for point in itertools.product(*(axes[axis] for axis in AXES))]
        kept = tuple(cell for cell in cells if not any(_matches(cell, rule) for rule in excluded))
        if not kept:
            raise self.wrong("exclude", f"nothing is left of {len(cells)} cells: exclude less")
        for cell in dict.fromkeys((cell.model, cell.size) for cell in kept):
            self.check_size(*cell)
        steps = tuple(self.word("steps", value, STEPS) for value in self.listed("steps", ["bench"]))
        return SweepPlan(
            cells=kept,
            steps=tuple(step for step in STEPS if step in steps),
            make=self.device(self.values.get("make", axes["device"][0])),
            calib=str(self.values.get("calib", "scenes")),
            data=self.table("data"),
            arguments={name: tuple(map(str, given)) for name, given in self.table("arguments").items()},
            timeout_s=float(self.values.get("timeout_s", 3600.0)),
        )

    def wrong(self, text: object, message: str) -> PlanError:
        """An error with the line on which ``text`` stands first, if it stands anywhere."""
        wanted = re.compile(rf"(?<![\w.-]){re.escape(str(text))}(?![\w.-])")
        number = next((i for i, line in enumerate(self.lines, start=1) if wanted.search(line.partition("#")[0])), None)
        where = f"{self.path}:{number}" if number else str(self.path)
        return PlanError(f"{where}: {message}")

    def listed(self, key: str, default: list[Any] | None) -> list[Any]:
        """A list that is not empty."""
        values = self.values.get(key, default)
        if values is None:
            raise self.wrong(key, f"a plan needs {key}: give a list")
        if not isinstance(values, list) or not values:
            raise self.wrong(key, f"{key} is {values!r}: give a list of one or more")
        return list(values)

    def table(self, key: str) -> dict[str, Any]:
        """A table, {} where there is none."""
        values = self.values.get(key, {})
        if not isinstance(values, dict):
            raise self.wrong(key, f"{key} is {values!r}: give a table, [{key}]")
        return values

    def word(self, key: str, value: object, words: Sequence[str]) -> str:
        """One of some words."""
        if value not in words:
            raise self.wrong(value, f"{key} has {value!r}: choose of {', '.join(words)}")
        return str(value)

    def device(self, value: object) -> str:
        """The name of a class of devices."""
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self.wrong(value, f"{value!r} names no class of devices: give a word such as cpu or orin-nx")
        return value

    def size(self, value: object) -> str:
        """``HxW``, or "" for the model's own."""
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(value))
        if value == "" or found is None:
            if value == "":
                return ""
            raise self.wrong(value, f"size {value!r}: give height and width, as 512x1024")
        return f"{found[1]}x{found[2] or found[1]}"

    def contract(self, value: object) -> str:
        """``tensor``, ``image``, or ``camera HxW``."""
        if not isinstance(value, str) or not re.fullmatch(r"tensor|image|camera[ :]\d+x\d+", value):
            raise self.wrong(value, f"contract {value!r}: give tensor, image, or camera and a size: camera 1080x1920")
        return value.replace(":", " ")

    def model(self, row: object) -> SweptModel:
        """A row of ``models``: a name, or a table with one."""
        values = {"model": row} if isinstance(row, str) else row
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            raise self.wrong("models", f"models has {row!r}: give a name, or {{ model = NAME, weights = FILE }}")
        known = SweptModel.__dataclass_fields__
        if unknown := [key for key in values if key not in known]:
            raise self.wrong(unknown[0], f"a model has no {unknown[0]}: it has {', '.join(known)}")
        weights = self.path.parent / values["weights"] if "weights" in values else None
        if weights is not None and not weights.is_file():
            raise self.wrong(values["weights"], f"weights {weights} are not there")
        found = {**values, "weights": weights, "set": tuple(map(str, values.get("set", ())))}
        return SweptModel(**{"label": values["model"], **found})

    def excluded(self, rule: object, axes: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """A rule of ``[[exclude]]``: a value or several for each axis that it names, all of which must hold."""
        if not isinstance(rule, dict) or not rule:
            raise self.wrong("exclude", f"exclude has {rule!r}: give axes and values, as runner = 'tensorrt'")
        found = {}
        for axis, given in rule.items():
            if axis not in AXES:
                raise self.wrong(axis, f"exclude has no axis {axis}: there are {', '.join(AXES)}")
            values = [str(value) for value in (given if isinstance(given, list) else [given])]
            there = [getattr(value, "label", value) for value in axes[axis]]
            if strange := [value for value in values if value not in there]:
                raise self.wrong(strange[0], f"exclude {axis} {strange[0]!r}: the plan has {', '.join(there)}")
            found[axis] = values
        return found

    def check_size(self, model: SweptModel, size: str) -> None:
        """Whether there is such a model at such a size."""
        from hiresvit.models.create import find_spec  # PyTorch

        sides = [int(side) for side in size.split("x")] if size else None
        given: dict[str, Any] = {"task": model.task, "num_classes": model.num_classes}
        try:
            find_spec(model.model, imgsz=sides and (sides[0], sides[1]), **given)
        except HiresvitError as error:
            raise self.wrong(size or model.model, str(error)) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    reader: Any = None
    for name in ("tomllib", "tomli"):  # the first is there from Python 3.11 on
        with suppress(ModuleNotFoundError):
            reader = reader or importlib.import_module(name)
    if reader is None:
        raise MissingDependency(f"Python 3.10 reads no TOML by itself: {install_line('sweep')}")
    try:
        return dict(reader.loads(text))
    except reader.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise PlanError(f"{path}{f':{line[1]}' if line else ''}: {error}") from error


def _matches(cell: Cell, rule: Mapping[str, list[str]]) -> bool:
    values = cell.to_json()
    return all(values[axis] in allowed for axis, allowed in rule.items())
