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
RUNNERS = ("onnxruntime", "openvino", "openvino:bf16", "tensorrt", "qnn")
STEPS = ("verify", "eval", "bench")
COMMANDS = ("export", "build", *STEPS, "hiresvit-run")
AXES = ("model", "size", "precision", "contract", "runner", "device")
_MODEL: dict[str, tuple[type, str]] = {
    "model": (str, "a variant's name"),
    "label": (str, "a text"),
    "weights": (str, "a file"),
    "task": (str, "segment, classify or features"),
    "num_classes": (int, "a number"),
    "set": (list, "a list of PARAMETER=VALUE"),
}
_LISTS = {axis: f"{axis}s" for axis in AXES}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


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
        axes: dict[str, Sequence[Any]] = {
            "model": [self.model(row) for row in self.listed("models", None)],
            "size": [self.size(value) for value in self.listed("sizes", [""])],
            "precision": [self.word("precisions", value, PRECISIONS) for value in self.listed("precisions", ["fp16"])],
            "contract": [self.contract(value) for value in self.listed("contracts", ["tensor"])],
            "runner": [self.word("runners", value, RUNNERS) for value in self.listed("runners", ["onnxruntime"])],
            "device": [self.device("devices", value) for value in self.listed("devices", ["cpu"])],
        }
        for axis, values in axes.items():
            names = [getattr(value, "label", value) for value in values]
            if twice := next((name for name in names if names.count(name) > 1), None):
                hint = ": give one of them a label of its own" if axis == "model" else ""
                raise self.wrong(_LISTS[axis], f"{_LISTS[axis]} has {twice} twice{hint}", twice)
        cells = self.cells(axes)
        for cell in dict.fromkeys((cell.model, cell.size) for cell in cells):
            self.check_size(*cell)
        steps = tuple(self.word("steps", value, STEPS) for value in self.listed("steps", ["bench"]))
        return SweepPlan(
            cells=cells,
            steps=tuple(step for step in STEPS if step in steps),
            make=self.device("make", self.values.get("make", axes["device"][0])),
            calib=self.text("calib", "scenes"),
            data=self.options("data"),
            arguments=self.arguments(),
            timeout_s=self.seconds("timeout_s", 3600.0),
        )

    def cells(self, axes: Mapping[str, Sequence[Any]]) -> tuple[Cell, ...]:
        """The product of the axes without what is excluded."""
        rules = self.values.get("exclude", [])
        if not isinstance(rules, list):
            raise self.wrong("exclude", "exclude is no list of rules: write each under [[exclude]]")
        excluded = [self.excluded(rule, axes) for rule in rules]
        cells = [Cell(*point) for point in itertools.product(*(axes[axis] for axis in AXES))]
        kept = tuple(cell for cell in cells if not any(_matches(cell, rule) for rule in excluded))
        if not kept:
            raise self.wrong("exclude", f"nothing is left of {len(cells)} cells: exclude less")
        return kept

    def wrong(self, key: str, message: str, text: object = "") -> PlanError:
        """An error with the line on which ``text`` stands after the key, or the key itself, if either does."""
        own = rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[\].=]"""
        start = next((i for i, line in enumerate(self.lines) if re.match(own, line)), None)
        word = re.compile(rf"(?<![\w.-]){re.escape(str(text))}(?![\w.-])")
        there = (i for i, line in enumerate(self.lines) if i >= (start or 0) and word.search(line.partition("#")[0]))
        number = next(there, start) if str(text) else start
        return PlanError(f"{self.path}{'' if number is None else f':{number + 1}'}: {message}")

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

    def options(self, key: str) -> dict[str, Any]:
        """A table of one value a name."""
        for name, value in self.table(key).items():
            if not isinstance(value, (str, int, float)) or isinstance(value, bool):
                raise self.wrong(key, f"{key} has {name} = {value!r}: give a text or a number", name)
        return self.table(key)

    def arguments(self) -> dict[str, tuple[str, ...]]:
        """Further arguments, by command: each a list of words."""
        for name, given in self.table("arguments").items():
            if name not in COMMANDS:
                raise self.wrong("arguments", f"arguments has {name!r}: choose of {', '.join(COMMANDS)}", name)
            words = given if isinstance(given, list) else [None]
            if any(not isinstance(word, (str, int, float)) or isinstance(word, bool) for word in words):
                raise self.wrong("arguments", f"{name} is {given!r}: give a list of words, as ['--images', 4]", name)
        return {name: tuple(map(str, given)) for name, given in self.table("arguments").items()}

    def text(self, key: str, default: str) -> str:
        """A text that is not empty."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"{key} is {value!r}: give a text")
        return value

    def seconds(self, key: str, default: float) -> float:
        """A time."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e7:
            raise self.wrong(key, f"{key} is {value!r}: give seconds, more than 0")
        return float(value)

    def word(self, key: str, value: object, words: Sequence[str]) -> str:
        """One of some words."""
        if value not in words:
            raise self.wrong(key, f"{key} has {value!r}: choose of {', '.join(words)}", value)
        return str(value)

    def device(self, key: str, value: object) -> str:
        """The name of a class of devices."""
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise self.wrong(key, f"{value!r} names no class of devices: give a word such as cpu or orin-nx", value)
        return value

    def size(self, value: object) -> str:
        """``HxW``, or "" for the model's own."""
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(value), re.ASCII)
        if value != "" and found is None:
            raise self.wrong("sizes", f"size {value!r}: give height and width, as '512x1024'", value)
        return f"{found[1]}x{found[2] or found[1]}" if found else ""

    def contract(self, value: object) -> str:
        """``tensor``, ``image``, or ``camera HxW``."""
        if not isinstance(value, str) or not re.fullmatch(r"tensor|image|camera[ :]\d+x\d+", value, re.ASCII):
            said = f"contract {value!r}: give tensor, image, or camera and a size: camera 1080x1920"
            raise self.wrong("contracts", said, value)
        return value.replace(":", " ")

    def model(self, row: object) -> SweptModel:
        """A row of ``models``: a name, or a table with one."""
        values = {"model": row} if isinstance(row, str) else row
        if not isinstance(values, dict) or "model" not in values:
            raise self.wrong("models", f"models has {row!r}: give a name, or {{ model = NAME, weights = FILE }}")
        for key, value in values.items():
            if key not in _MODEL:
                raise self.wrong("models", f"a model has no {key}: it has {', '.join(_MODEL)}", key)
            kind, words = _MODEL[key]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise self.wrong("models", f"{key} of a model is {value!r}: give {words}", key)
        weights = self.path.parent / values["weights"] if "weights" in values else None
        if weights is not None and not weights.is_file():
            raise self.wrong("models", f"weights {weights} are not there", values["weights"])
        found = {**values, "weights": weights, "set": tuple(map(str, values.get("set", ())))}
        return SweptModel(**{"label": values["model"], **found})

    def excluded(self, rule: object, axes: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
        """A rule of ``[[exclude]]``: a value or several for each axis that it names, all of which must hold."""
        if not isinstance(rule, dict) or not rule:
            raise self.wrong("exclude", f"exclude has {rule!r}: give axes and values, as runner = 'tensorrt'")
        found = {}
        for axis, given in rule.items():
            if axis not in AXES:
                raise self.wrong("exclude", f"exclude has no axis {axis}: there are {', '.join(AXES)}", axis)
            values = [str(value) for value in (given if isinstance(given, list) else [given])]
            there = [getattr(value, "label", value) for value in axes[axis]]
            if strange := [value for value in values if value not in there]:
                said = f"exclude {axis} {strange[0]!r}: the plan has {', '.join(map(str, there))}"
                raise self.wrong("exclude", said, strange[0])
            found[axis] = values
        return found

    def check_size(self, model: SweptModel, size: str) -> None:
        """Whether there is such a model at such a size."""
        from hiresvit.models.create import model_spec  # PyTorch

        def check(key: str, text: str, imgsz: tuple[int, int] | None) -> None:
            try:
                model_spec(model.model, model.task, imgsz, model.num_classes)  # type: ignore[arg-type]
            except UsageError as error:
                raise self.wrong(key, str(error), text) from error

        check("models", model.model, None)
        if size:
            height, width = (int(side) for side in size.split("x"))
            check("sizes", size, (height, width))


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
        number = line[1] if line else len(text.splitlines())  # else it is "at end of document"
        raise PlanError(f"{path}:{number}: {error}") from error


def _matches(cell: Cell, rule: Mapping[str, list[str]]) -> bool:
    values = cell.to_json()
    return all(values[axis] in allowed for axis, allowed in rule.items())
