"""Two opened networks, compared at every boundary of a PyTorch module: `hiresvit compare --layers`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.errors import GateError, HiresvitError, MissingDependency, UsageError
from hiresvit.evaluation.layers import TOLERANCES, LayerDifference, Matched, compare_layers, first_beyond, match_modules
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.evaluation.reference import TENSOR, picture_size
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.frame import picture_feed, reference_feed
from hiresvit.spec import Feed, Feeds
from hiresvit.workflows.open import Source
from hiresvit.workflows.smallest import write_smallest
from hiresvit.workflows.watched import Watched, find_engine, watch

Picture = NDArray[np.uint8]


class _Fed:
    """Pictures as what a network takes, each made when it is asked for."""

    def __init__(self, pictures: Sequence[Picture], make: Callable[[Picture], Feed]) -> None:
        self.pictures, self.make = pictures, make

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Feed:
        return self.make(self.pictures[index])


def compare_sources_by_layer(
    reference: Source,
    test: Source,
    images: Sequence[Picture],
    *,
    drawn: int,
    runner: str | None = None,
    tolerance: float | None = None,
    smallest: Path | None = None,
    on_step: OnStep = silent,
) -> tuple[dict[str, Any], HiresvitError | None]:
    """Where ``test`` parts from ``reference`` on uint8 (H, W, 3) images and ``drawn`` streets, as plain JSON values.

    ``runner`` is what ``test`` is computed by, if a name was given. ``tolerance`` is the least SQNR of a module in dB;
    None takes that of the lower precision of both, and then nothing is missed. ``smallest`` is a file for the smallest
    graph that ``test``'s engine gets wrong (`write_smallest`): with it, what the engine refuses or fails on is looked
    at before that is the error. Both runners are closed: their memory is needed. Raises UsageError if neither says how
    it takes a picture, without pictures, for two contracts, for a plan or a context whose graph is not there, and where
    no module of one is in the other.
    """
    fed = _feeds(reference, test, images, drawn)
    engine = find_engine(test, runner)
    if smallest is not None and engine is None:
        raise UsageError(
            f"--smallest: ONNX Runtime's CPU computes {test.label}, and is what an engine is held to; give --runner, a"
            " plan or a context"
        )
    failed: list[HiresvitError] = []
    whole: dict[str, Any] | None = None
    found: list[LayerDifference] = []
    with ExitStack() as stack:
        with _noted(failed, wanted=smallest is not None):
            whole = _whole(reference, test, fed)
        a = stack.enter_context(watch(reference, fed[0], None))
        b = stack.enter_context(watch(test, fed[1], engine))
        matched = _matched(reference, test, a, b)
        lower = min(TOLERANCES[a.precision], TOLERANCES[b.precision])
        least = lower if tolerance is None else tolerance
        tensors = {one.module: one.tensor for one in b.boundaries}
        if not failed:
            with _noted(failed, wanted=smallest is not None):
                count, pairs = len(fed[0]), matched.pairs
                found = compare_layers(pairs, a.side, b.side, images=count, tolerance=least, on_step=on_step)
    first = first_beyond(found)
    layers: dict[str, Any] = {
        **_sides(reference, test),
        "images": len(fed[0]),
        "tolerance": least,
        "modules": [one.to_json() for one in found],
        "unmatched": {"reference": list(matched.only_reference), "test": list(matched.only_test)},
        "first": None if first is None else first.to_json(),
        "whole": whole,
    }
    if smallest is not None and engine is not None:
        tensor = tensors[first.module] if first else None
        layers["failed"] = [str(error) for error in failed]
        layers["smallest"] = write_smallest(test, engine, fed[1], smallest, least, tensor=tensor, on_step=on_step)
    if failed:
        return layers, failed[0]
    return layers, None if tolerance is None else _missed(test, layers)


def _sides(reference: Source, test: Source) -> dict[str, Any]:
    """What is compared."""
    spec = reference.spec or test.spec
    return {
        "reference": reference.label,
        "test": test.label,
        "origins": {"reference": dict(reference.origin), "test": dict(test.origin)},
        "size": list(spec.imgsz) if spec else None,
    }


def _missed(test: Source, layers: Mapping[str, Any]) -> GateError | None:
    """What is to be said of a module, or else of the answer, that is below a limit that was set."""
    first, whole, least = layers["first"], layers["whole"], layers["tolerance"]
    if first is not None:
        beyond = sum(one["verdict"] is not None for one in layers["modules"])
        where = (
            f"module {first['module']} has {_said(first)}, at least {least:g} is needed, and is the first of {beyond}"
        )
        return GateError(f"{test.label}: {where}; --layer-sqnr sets it")
    if whole is not None and whole["max_abs"] != 0 and (whole["sqnr_db"] is None or whole["sqnr_db"] < least):
        where = f"the whole has {_said(whole)}, at least {least:g} is needed, though each module alone has that"
        return GateError(f"{test.label}: {where}; --layer-sqnr sets it")
    return None


def _said(row: Mapping[str, Any]) -> str:
    if row["max_abs"] is None:
        return "NaN or Inf"
    return "no SQNR, the reference is 0 there," if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f} dB"


@contextmanager
def _noted(failed: list[HiresvitError], *, wanted: bool) -> Iterator[None]:
    """Keep what an engine says of a graph that it does not compute, where that is ``wanted``."""
    try:
        yield
    except (UsageError, MissingDependency):
        raise
    except HiresvitError as error:
        if not wanted:
            raise
        failed.append(error)


def _whole(reference: Source, test: Source, fed: Sequence[Feeds]) -> dict[str, Any] | None:
    """How far the answers of both are apart as they were opened, no tensor marked; None for classes alone.

    It is the worst of all pictures and outputs.
    """
    worst: dict[str, Any] | None = None
    for image in range(len(fed[0])):
        a, b = (source.runner(feeds[image]) for source, feeds in zip((reference, test), fed, strict=True))
        for name in a.keys() & b.keys():
            if a[name].shape != b[name].shape or not np.issubdtype(a[name].dtype, np.floating):
                continue
            apart = compare_arrays(a[name], b[name])
            if worst is None or apart.sqnr_db < worst["sqnr_db"]:
                worst = {"output": name, "sqnr_db": apart.sqnr_db, "max_abs": apart.max_abs}
    if worst is not None:
        worst |= {key: worst[key] if math.isfinite(worst[key]) else None for key in ("sqnr_db", "max_abs")}
    return worst


def _matched(reference: Source, test: Source, a: Watched, b: Watched) -> Matched:
    """The modules of both. Raises UsageError if there is none."""
    matched = match_modules(a.boundaries, b.boundaries)
    if not matched.pairs:
        several = f"{reference.label} has {len(a.boundaries)} modules, {test.label} {len(b.boundaries)}, and none"
        if set(matched.only_reference) & set(matched.only_test):
            raise UsageError(f"{several} has one size in both: compare two of one network and one input size")
        raise UsageError(f"{several} is in both: nodes must be named by module, as hiresvit exports them")
    return matched


def _feeds(reference: Source, test: Source, images: Sequence[Picture], drawn: int) -> list[Feeds]:
    """The same pictures for both sides; behind a contract, what the network would get there for the other."""
    spec = reference.spec or test.spec
    if spec is None:
        raise UsageError("neither graph says how it takes a picture; one must be from hiresvit")
    contracts = {side.contract for side in (reference, test)} - {TENSOR}
    if len(contracts) > 1:
        raise UsageError(f"{reference.label} and {test.label} have two contracts: compare two of one, or one with none")
    contract = next(iter(contracts), TENSOR)
    size = spec.imgsz if contract == TENSOR else picture_size(spec, contract)
    pictures = [*images, *sample_images(drawn, size)]

    def feeding(source: Source) -> Callable[[Picture], Feed]:
        kinds = {tensor.name: tensor.dtype for tensor in source.runner.inputs}

        def make(picture: Picture) -> Feed:
            if contract == TENSOR:
                feed: Feed = {"image": example_input(picture, spec.preprocess, spec.imgsz)}
            else:
                feed = picture_feed(picture, spec, contract)
                feed = reference_feed(feed, spec, contract) if source.contract == TENSOR else feed
            if len(kinds) == 1:  # a graph of somebody else may call it otherwise
                feed = dict(zip(kinds, feed.values(), strict=True))
            return {name: values.astype(kinds[name]) for name, values in feed.items()}

        return make

    return [_Fed(pictures, feeding(source)) for source in (reference, test)]
