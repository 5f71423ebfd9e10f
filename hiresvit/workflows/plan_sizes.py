"""`hiresvit plan-sizes`: what input sizes cost, before anything is trained at one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice, product
from typing import Any

from hiresvit.errors import UsageError
from hiresvit.models.cost import build_meta, count_work, padded_macs, peak_elements, saved_elements
from hiresvit.models.macs import count_by_module
from hiresvit.models.zoo import MODELS
from hiresvit.progress import OnStep, silent
from hiresvit.spec import STRIDES, ModelSpec

Size = tuple[int, int]
REACH = 3  # sides to look at below and above: of seven in a row one is a whole number of windows of 7
LARGEST = 8192  # pixels of a side
FP16_BYTES, FP32_BYTES = 2, 4
SAME = 3  # digits of a share that differ


def sizes_near(spec: ModelSpec, asked: Size, count: int, on_step: OnStep = silent) -> dict[str, Any]:
    """The ``count`` sizes around ``asked`` (height, width) with the least padding, nearest first among equals.

    ``asked`` is one of them; where the family refuses it ``refused`` says why, and the nearest is one of them. JSON
    values; the rows are those of `_row`. Raises UsageError for a side above `LARGEST` and where the family takes no
    size around.
    """
    _require_sides(asked)
    refused = _refusal(spec, asked)
    around = sorted(_around(spec, asked), key=lambda size: _distance(size, asked))
    if not around:
        raise UsageError(refused or f"{spec.name} takes no size around {_by(asked)}")
    if refused is None and asked not in around:
        around.insert(0, asked)
    # Every size is laid out and only what is shown is run: which that is follows from the shares of the nearest's work.
    counts = count_by_module(_model(spec, around[0]), around[0])
    padded: dict[Size, int] = {}
    for number, size in enumerate(around):
        on_step("sizes: laid out", number / len(around))
        padded[size] = padded_macs(_model(spec, size), counts)
    total = counts[""].total
    best = sorted(around, key=lambda size: (round(padded[size] / total, SAME), _distance(size, asked)))[:count]
    if around[0] not in best:  # what was asked for, or the nearest to it that is taken
        best[-1] = around[0]
    rows = [_row(spec, size, asked) for size in _told(best, on_step)]
    rows.sort(key=lambda row: (round(row["padding"], SAME), _distance(row["imgsz"], asked)))
    return {**_head(spec), "near": list(asked), "budget_macs": None, "refused": refused, "sizes": rows}


def sizes_within(spec: ModelSpec, budget: float, shape: Size, count: int, on_step: OnStep = silent) -> dict[str, Any]:
    """The largest sizes of at most ``budget`` multiply-accumulates; ``shape`` is height to width of the pictures.

    The larger size is the one that holds the larger picture of this shape; of equals the one with fewer pixels.
    JSON values as of `sizes_near`. Raises UsageError for a budget below the smallest size's or above the largest's.
    """
    sides = [side for side in range(STRIDES[-1], LARGEST + 1, STRIDES[-1]) if not _refusal(spec, (side, side))]
    costs: dict[Size, int] = {}

    def cost(size: Size) -> int:
        if size not in costs:
            on_step("sizes: counted", None)
            costs[size] = count_by_module(_model(spec, size), size)[""].total
        return costs[size]

    smallest = sides[0], sides[0]
    if not budget >= cost(smallest):
        least = f"{_by(smallest)}, the smallest size, takes {cost(smallest) / 1e9:.3g}"
        raise UsageError(f"--budget-macs {budget / 1e9:g}: too little for {spec.name}; {least} GMACs")
    start = _fill_budget(spec, sides, budget, shape, cost)
    around = sorted(_around(spec, start, 2), key=lambda size: (-_holds(size, shape), size[0] * size[1]))
    best = list(islice((size for size in around if cost(size) <= budget), count)) or [smallest]
    rows = [_row(spec, size, None) for size in _told(best, on_step)]
    return {**_head(spec), "near": None, "budget_macs": budget, "refused": None, "shape": list(shape), "sizes": rows}


def _fill_budget(spec: ModelSpec, sides: list[int], budget: float, shape: Size, cost: Callable[[Size], int]) -> Size:
    """The largest size of about this shape within a budget, by guesses that its multiply-accumulates go with its area.

    The smallest is taken to be within it.
    """
    ratio = min(shape) / max(shape)

    def of_shape(long: int) -> Size:
        short = min(sides, key=lambda side: abs(side - long * ratio))
        return (short, long) if shape[0] < shape[1] else (long, short)

    low, high, guess = 0, len(sides), float(max(spec.imgsz))
    while high - low > 1:
        middle = min(max(bisect_right(sides, guess) - 1, low + 1), high - 1)
        found = cost(of_shape(sides[middle]))
        low, high = (middle, high) if found <= budget else (low, middle)
        guess = sides[middle] * (budget / found) ** 0.5
    size = of_shape(sides[low])
    if high == len(sides):
        least = f"{_by(size)}, the largest size that is looked at; give less than {cost(size) / 1e9:.0f}"
        raise UsageError(f"--budget-macs {budget / 1e9:g}: enough for {least}")
    return size


def _row(spec: ModelSpec, size: Size, asked: Size | None) -> dict[str, Any]:
    """What a size costs for one image, as JSON values.

    ``padding`` is the share of the multiply-accumulates that is spent on padding (`hiresvit.models.cost.Work`).
    ``activation_bytes`` are the most that PyTorch holds at once without gradients, in FP16 (`peak_elements`);
    ``training_bytes`` what it keeps for the backward pass, in FP32 (`saved_elements`).
    """
    model = _model(spec, size)
    work = count_work(model, size)
    return {
        "imgsz": list(size),
        "macs": work.macs.total,
        "padded_macs": work.padded,
        "padding": work.padding,
        "activation_bytes": FP16_BYTES * peak_elements(model, size),
        "training_bytes": FP32_BYTES * saved_elements(model, size),
        "asked": size == asked,
    }


def _head(spec: ModelSpec) -> dict[str, Any]:
    return {"model": spec.name, "task": spec.task, "overrides": dict(spec.overrides), "device": None}


def _model(spec: ModelSpec, size: Size) -> Any:
    return build_meta(MODELS[spec.name].build, replace(spec, imgsz=size))


def _refusal(spec: ModelSpec, size: Size) -> str | None:
    """Why the family does not take a size, None if it does."""
    try:
        MODELS[spec.name].check(replace(spec, imgsz=size))
    except UsageError as error:
        return str(error)
    return None


def _around(spec: ModelSpec, size: Size, reach: int = REACH) -> list[Size]:
    """Sizes that the family takes, each side up to ``reach`` of its steps up and down.

    Sides are multiples of the coarsest stride of most families; a family refuses those that are not its own.
    """
    choices = []
    for side in size:
        steps = range(STRIDES[-1], LARGEST + 1, STRIDES[-1])
        taken = [step for step in steps if abs(step - side) < 512 and not _refusal(spec, (step, step))]
        below, above = [s for s in taken if s < side], [s for s in taken if s > side]
        choices.append([*below[-reach:], *(s for s in taken if s == side), *above[:reach]])
    heights, widths = choices
    return [one for one in product(heights, widths) if not _refusal(spec, one)]


def _told(sizes: list[Size], on_step: OnStep) -> Iterable[Size]:
    for number, size in enumerate(sizes):
        on_step("sizes: counted", number / len(sizes))
        yield size


def _require_sides(size: Size) -> None:
    if not all(1 <= side <= LARGEST for side in size):
        raise UsageError(f"--near {_by(size)}: give sides of 1 to {LARGEST} pixels")


def _distance(size: Iterable[int], asked: Size) -> int:
    return sum(abs(side - wanted) for side, wanted in zip(size, asked, strict=True))


def _holds(size: Size, shape: Size) -> float:
    """How large a picture of this shape fits into a size, as a factor of the shape."""
    return min(size[0] / shape[0], size[1] / shape[1])


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
