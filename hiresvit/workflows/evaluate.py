"""`hiresvit eval`: how often networks are right on a labelled data set, all of them in one pass over its pictures."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiresvit.data.dataset import Dataset, check_fit
from hiresvit.data.labels import find_labels
from hiresvit.data.open import open_dataset
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.evaluation.beside import side_rows, worst_pictures
from hiresvit.evaluation.bootstrap import RESAMPLES, SEED
from hiresvit.evaluation.counts import check_labelled, check_sample, columns, count
from hiresvit.evaluation.ledger import Key, Ledger
from hiresvit.evaluation.protocol import Answerer, Protocol, answerer, find_protocol
from hiresvit.progress import OnStep, silent
from hiresvit.spec import ContractSpec, ModelSpec
from hiresvit.workflows.open import Source, Unopened, distinct
from hiresvit.workflows.worst import draw_worst, equal

SAVE_SECONDS = 5.0
_REST = 20  # times as long as saving took, until it is done again: of many pictures on a slow card
Side = Source | Unopened
FindProtocol = Callable[[ModelSpec, ContractSpec], Protocol]


def own_protocol(spec: ModelSpec, contract: ContractSpec) -> Protocol:
    """What a network's spec says."""
    return find_protocol(None, spec, contract)


@dataclass(frozen=True)
class EvalSettings:
    """What is measured, and how.

    ``dataset``, ``folder``, ``split`` and ``limit`` are as in `open_dataset`; ``protocol`` finds that of a network.
    ``worst`` pictures are named, and drawn in the folder ``draw``, or beside ``output``, the file that the document
    goes to; with one their paths are relative to its folder. Progress is kept there, too (`state`); ``options`` is what
    else the answers depend on, and tells one evaluation from another. ``threads`` are those that make labels of logits,
    None for as many as help.
    """

    dataset: str
    folder: Path | None = None
    split: str | None = None
    limit: int | None = None
    protocol: FindProtocol = own_protocol
    worst: int = 3
    draw: Path | None = None
    output: Path | None = None
    options: str = ""
    threads: int | None = None
    resamples: int = RESAMPLES
    seed: int = SEED

    @property
    def state(self) -> Path | None:
        """The hidden file that progress is kept in, until the document is written."""
        return None if self.output is None else self.output.with_name(f".{self.output.name}.eval.npz")

    @property
    def drawn(self) -> str | None:
        """What the paths of the drawn pictures begin with; None where none are drawn."""
        if self.draw is not None:
            return str(self.draw / "worst-")
        return None if self.output is None else str(self.output.with_name(f"{self.output.stem}-worst-"))


@dataclass(frozen=True)
class Evaluated:
    """``document`` is plain JSON values; ``failure`` what interrupted the pass, or the first side's that failed."""

    document: dict[str, Any]
    notes: tuple[str, ...] = ()
    failure: BaseException | None = None


@dataclass(frozen=True, eq=False)
class _Asked:
    """A side that answers: its spec, the protocol by which it is asked, and what asks it."""

    spec: ModelSpec
    protocol: Protocol
    by: Answerer


def evaluate_sources(sides: Sequence[Side], what: EvalSettings, *, on_step: OnStep = silent) -> Evaluated:
    """Measure opened sides on the pictures of a data set, each picture read once and answered by every side.

    A side that did not open, or fails at a picture, has its ``failure`` and no numbers, and the others go on. An
    interruption (KeyboardInterrupt) ends the pass: what was measured is returned, and is kept in ``what.state``, where
    the next call with the same data set, sides and options goes on. The pictures that are drawn are answered again.

    Raises UsageError for a source that does not say what its answers mean, and whatever `open_dataset`, `find_protocol`
    and `check_fit` raise; HiresvitError for an empty data set and for pictures and labels that are damaged or do not
    belong together, with what was measured in ``what.state``; the last side's error if all have failed.
    """
    specs = [_spec_of(side) for side in sides]
    dataset = _pictures(sides, specs, what)
    asked = [_ask(side, spec, what) for side, spec in zip(sides, specs, strict=True)]
    ledger, notes, key = Ledger(len(sides), len(dataset), columns(dataset)), [], _key(sides, asked, dataset, what)
    if what.state is not None and what.state.exists() and not ledger.load(what.state, key):
        notes.append(f"{what.state} is of another evaluation, or damaged: this one begins anew")
    if ledger.done:
        notes.append(f"{ledger.done} of {len(dataset)} pictures were measured before it was interrupted, and are kept")
    for number, side in enumerate(sides):
        if isinstance(side, Unopened):
            ledger.fail(number, side.error)
    with _keeping(ledger, what.state, key) as save:
        stopped = _pass(ledger, dataset, asked, save, on_step)
        found = _document(ledger, dataset, sides, asked, what)
        if stopped is None and what.drawn is not None and found["worst"]:
            on_step("draw", None)
            _draw(found, dataset, asked, what)
    notes += _differing(asked, found["sides"])
    return _ended(found, notes, stopped, what)


def _ended(found: dict[str, Any], notes: list[str], stopped: KeyboardInterrupt | None, what: EvalSettings) -> Evaluated:
    """With what is to be said of its end, and the failure that the program ends with."""
    failed = [row for row in found["sides"] if row["failure"]]
    said = [f"{row['name']} has no numbers: {row['failure']['message']}" for row in failed]
    if stopped is not None:
        goes_on = "with -o FILE the next run would go on" if what.state is None else "the same command goes on there"
        notes += [*said, f"interrupted after {found['images']} of {found['dataset']['pictures']} pictures; {goes_on}"]
        return Evaluated({"accuracy": found}, tuple(notes), stopped)
    failure = None
    if failed:
        failure = HiresvitError("; ".join(said))
        failure.exit_code = failed[0]["failure"]["exit_code"]
    return Evaluated({"accuracy": found}, tuple(notes), failure)


def _spec_of(side: Side) -> ModelSpec | None:
    if isinstance(side, Unopened):
        return None
    if side.spec is None:
        raise UsageError(f"{side.label} does not say what its answers mean; give one that hiresvit exported")
    return side.spec


def _pictures(sides: Sequence[Side], specs: Sequence[ModelSpec | None], what: EvalSettings) -> Dataset:
    """The data set, which every network fits; drawn pictures have the size of the first, or of the first camera."""
    known = [spec for spec in specs if spec is not None]
    # A camera's graph takes pictures of the camera's size, and drawn ones can have it.
    cameras = [side.contract.size for side in sides if isinstance(side, Source) and side.contract.name == "camera"]
    size = next((size for size in cameras if size), known[0].imgsz)
    dataset = open_dataset(what.dataset, folder=what.folder, split=what.split, imgsz=size, limit=what.limit)
    for spec in known:
        check_fit(spec, dataset)
    if len(dataset) == 0:
        raise HiresvitError(f"{dataset.name} has no images; nothing can be measured on it")
    return dataset


def _ask(side: Side, spec: ModelSpec | None, what: EvalSettings) -> _Asked | None:
    if isinstance(side, Unopened) or spec is None:
        return None
    protocol = what.protocol(spec, side.contract)
    return _Asked(spec, protocol, answerer(side.runner, spec, side.contract, protocol, threads=what.threads))


def _key(sides: Sequence[Side], asked: Sequence[_Asked | None], dataset: Dataset, what: EvalSettings) -> Key:
    """Of everything that the numbers depend on: of the pictures that were answered also their files' sizes and times.

    So whoever repairs the picture at which it ended goes on there, and whoever changes one that counts begins anew.
    """
    known = [
        [side.label, None if isinstance(side, Unopened) else dict(side.origin), repr(one and (one.spec, one.protocol))]
        for side, one in zip(sides, asked, strict=True)
    ]
    names = [dataset.name_of(index) for index in range(len(dataset))]
    said = [dataset.name, str(what.folder), dataset.ignore, sorted(dataset.classes.items()), names, known, what.options]
    text = json.dumps(said, sort_keys=True)
    stamps = [] if what.state is None else [[_stamp(p) for p in dataset.files_of(i)] for i in range(len(dataset))]

    def key(done: int) -> str:
        return hashlib.sha256(f"{text}{stamps[:done]}".encode("utf-8", "surrogateescape")).hexdigest()

    return key


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # whoever reads it says what is wrong
        return 0, 0
    return status.st_size, status.st_mtime_ns


@contextmanager
def _keeping(ledger: Ledger, state: Path | None, key: Key) -> Iterator[Callable[[], None]]:
    """What keeps the ledger; it is kept whatever ends the work. Raises HiresvitError if the place cannot be written."""

    def save() -> None:
        if state is not None:
            ledger.save(state, key)

    save()  # finds out now whether it can, and not after hours
    try:
        yield save
    except BaseException:
        with suppress(HiresvitError):  # what is under way already is what the caller has to hear
            save()
        if not ledger.done and state is not None:
            state.unlink(missing_ok=True)
        raise


def _pass(
    ledger: Ledger, dataset: Dataset, asked: Sequence[_Asked | None], save: Callable[[], None], on_step: OnStep
) -> KeyboardInterrupt | None:
    """Answer the pictures that are left; what interrupted that, once there is something to show."""
    saved, wait = time.monotonic(), SAVE_SECONDS
    stopped = None
    try:
        for index in range(ledger.done, len(dataset)):
            _answer(ledger, dataset, asked, index)
            on_step("evaluate", ledger.done / len(dataset))
            if (began := time.monotonic()) - saved >= wait:
                save()
                saved = time.monotonic()
                wait = max(SAVE_SECONDS, _REST * (saved - began))
    except KeyboardInterrupt as interrupted:
        if not ledger.done:
            raise
        stopped = interrupted
    save()
    return stopped


def _answer(ledger: Ledger, dataset: Dataset, asked: Sequence[_Asked | None], index: int) -> None:
    """One picture's rows. Raises what is wrong with it, and the error of the last side that answered."""
    try:
        sample = dataset[index]
        check_sample(sample, dataset, index)
    except HiresvitError as error:
        name = f"picture {dataset.name_of(index)} ({index + 1} of {len(dataset)})"
        raise HiresvitError(f"{error}; {name} is not passed over, the number would be that of another set") from error
    first = None
    for side in ledger.living:
        one = asked[side]
        assert one is not None  # what did not open has failed
        try:
            answer = one.by.predict(sample.image)
            ledger.rows[side, index] = count(sample, answer, dataset)
        except HiresvitError as error:
            if ledger.living == [side]:
                raise
            ledger.fail(side, error)
            continue
        if side == 0:
            first = answer
        if first is not None:
            ledger.equal[side, index] = equal(first, answer)
    ledger.answers[index] = 1 if dataset.task == "classify" else np.size(sample.labels)
    ledger.done = index + 1


def _document(
    ledger: Ledger, dataset: Dataset, sides: Sequence[Side], asked: Sequence[_Asked | None], what: EvalSettings
) -> dict[str, Any]:
    check_labelled(ledger.rows[ledger.living[0], : ledger.done].sum(0), dataset, ledger.done)
    classes = [one.spec.num_classes if one else 0 for one in asked]
    names = distinct(side.label for side in sides)
    rows = side_rows(ledger, dataset, classes, resamples=what.resamples, seed=what.seed)
    protocol = next(one.protocol for one in asked if one)
    segments = dataset.task == "segment"
    return {
        "dataset": {"name": dataset.name, "pictures": len(dataset), "ignore": dataset.ignore if segments else None},
        "protocol": protocol.to_json(dataset.ignore if segments else None),
        "task": dataset.task,
        "images": ledger.done,
        "complete": ledger.done == len(dataset),
        "seed": what.seed,
        "resamples": what.resamples,
        "sides": [
            {"name": name, "origin": dict(side.origin) if isinstance(side, Source) else None, **row}
            for name, side, row in zip(names, sides, rows, strict=True)
        ],
        "worst": [
            {
                "picture": dataset.name_of(row["index"]),
                "index": row["index"],
                "agreement": row["agreement"],
                "sides": [{"name": n, "accuracy": a} for n, a in zip(names, row["accuracy"], strict=True)],
                "image": None,
            }
            for row in worst_pictures(ledger, dataset, what.worst)
        ],
    }


def _differing(asked: Sequence[_Asked | None], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which sides are asked otherwise than the one whose protocol is shown."""
    shown = next(one.protocol for one in asked if one)
    notes = []
    for one, row in zip(asked, rows, strict=True):
        if one and (said := one.protocol.to_json()) != (first := shown.to_json()):
            other = ", ".join(f"{name} {said[name]}" for name in said if name != "notes" and said[name] != first[name])
            notes.append(f"{row['name']} is asked otherwise than the first: {other or 'see its notes'}")
    return notes


def _draw(found: dict[str, Any], dataset: Dataset, asked: Sequence[_Asked | None], what: EvalSettings) -> None:
    """Draw the worst pictures, and write down where."""
    rows = found["sides"]
    living = {row["name"]: one for row, one in zip(rows, asked, strict=True) if one and not row["failure"]}
    meaning = find_labels(max((one.spec for one in living.values()), key=lambda spec: spec.num_classes or 0), dataset)
    sides = {name: one.by for name, one in living.items()}
    paths = draw_worst(found["worst"], dataset, sides, meaning, str(what.drawn), reference=rows[0]["name"] in living)
    for row, path in zip(found["worst"], paths, strict=True):
        row["image"] = str(path) if what.output is None else os.path.relpath(path, what.output.parent)
