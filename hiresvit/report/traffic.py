"""What a plan moves, as tables for people, from the document of `hiresvit.engine.roofline.describe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.tables import Values, counted, make_table, number_text, page_width, size_text, wrapped
from hiresvit.schema import NUMBER, TEXT, record, some

TOP = 10
BOUND = record(
    {
        **dict.fromkeys(("device", "clock"), TEXT),
        **dict.fromkeys(("time_ms", "bound_ms", "multiple"), NUMBER),
        **dict.fromkeys(("cached_ms", "cached_multiple"), some(NUMBER)),
    },
    more=True,
)
"""What a document of `bench` says of a side's lower bound."""
_NAMED = 3


def traffic_report(found: Values) -> list[RenderableType]:
    """The sums, the kernels that move most with their modules, the bound on a device, and what is not counted."""
    roofline = found["roofline"]
    items: list[RenderableType] = [sums_table(found), kernels_table(found["kernels"])]
    lines = [] if roofline is None else bound_lines(roofline, counted_macs=found["macs"] is not None)
    lines += [f"note: {line}" for line in _notes(found)]
    texts = ["\n".join(wrapped(line, page_width(), "  ")) for line in lines]
    return [*items, *("" for _ in texts[:1]), *texts]


def sums_table(found: Values) -> Table:
    """Bytes and multiply-accumulates of one call."""
    macs = found["macs"]
    products = ", ".join(f"{count / 1e9:.3g} GMACs in {word}" for word, count in macs.items()) if macs else "none"
    sizes = ("read", "written", "activation", "weight")
    names = ("activations read", "activations written", "activations in all", "weights read")
    rows = {
        **{name: f"{_megabytes(found[f'{size}_bytes'])} MB" for name, size in zip(names, sizes, strict=True)},
        "products": "unknown" if macs is None else products,
        "operations a byte": number_text(found["intensity"], ".1f") or "unknown",
    }
    return make_table("what one call moves", "what", ">how much", rows=rows.items())


def kernels_table(kernels: Sequence[Values]) -> Table:
    """The kernels that move most, with the modules that they are counted for."""
    rows = sorted(kernels, key=lambda row: -(row["activation_bytes"] + row["weight_bytes"]))[:TOP]
    bounds = [">bound us"] if any("bound_us" in row for row in rows) else []
    columns = (">MB", ">read", ">written", ">weights", ">MMACs", *bounds, "kind", "modules")
    table = make_table(f"the {min(TOP, len(kernels))} of {counted(len(kernels), 'kernel')} that move most", *columns)
    for row in rows:
        sizes = (row["activation_bytes"] + row["weight_bytes"], row["read_bytes"], row["written_bytes"])
        macs = None if row["macs"] is None else sum(row["macs"].values()) / 1e6
        bound = [number_text(row.get("bound_us"), ".1f")] if bounds else []
        texts = (*(_megabytes(size) for size in (*sizes, row["weight_bytes"])), number_text(macs, ".1f"), *bound)
        table.add_row(*texts, row["kind"], ", ".join(row["modules"]) or row["name"])
    return table


def bound_lines(roofline: Values, *, counted_macs: bool = True) -> list[str]:
    """What the least time is, what it is made of, and what the cache could take off it; that it is no prediction."""
    rates = f"{roofline['bandwidth_gbs']:g} GB/s, {roofline['fp16_tflops']:g} TFLOP/s in FP16"
    parts = f"{roofline['memory_ms']:.3f} ms of bytes"
    parts += (
        f", {roofline['compute_ms']:.3f} ms of products; bytes take longer in {roofline['bounded_by_memory']} kernels"
        if counted_macs
        else ", products unknown"
    )
    lines = [
        f"lower bound on {roofline['device']} ({roofline['title']}; {rates}): {roofline['bound_ms']:.3f} ms a call"
        f" where all bytes pass the memory ({parts})"
    ]
    if roofline["overlapped"]:
        lines.append("kernels of this plan may run beside each other: the longer sum is the bound")
    if roofline["cached_ms"] is not None:
        saved = roofline["bound_ms"] - roofline["cached_ms"]
        lines.append(
            f"its L2 of {roofline['l2_mib']:g} MiB could save {saved:.3f} ms at the very most, which leaves"
            f" {roofline['cached_ms']:.3f} ms"
        )
    return [*lines, "a bound and no prediction: launches, waits and what no kernel reaches of either rate come on top"]


def bench_table(sides: Mapping[str, Values]) -> list[RenderableType]:
    """Measured times as multiples of the lower bounds; [] where none is known."""
    rows = []
    for name, side in sides.items():
        bound = side.get("roofline")
        if not bound:
            continue
        numbers = (bound["time_ms"], bound["bound_ms"], bound["multiple"], bound["cached_ms"], bound["cached_multiple"])
        clock = "GPU" if bound["clock"] == "gpu" else "call"
        rows.append((name, bound["device"], clock, *(number_text(value, ".3f") for value in numbers)))
    if not rows:
        return []
    columns = ("side", "device", "time of", ">ms", ">bound", ">x bound", ">with all its L2", ">x that")
    return [make_table("measured, and the least that it could take, in ms", *columns, rows=rows)]


def _notes(found: Values) -> list[str]:
    notes = []
    if best := found.get("best_shapes"):
        shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in best.items())
        notes.append(f"dynamic axes are counted at the profile's best shape: {shapes}")
    if untold := found["untold"]:
        more = f" and {len(untold) - _NAMED} more" if len(untold) > _NAMED else ""
        what = f"{', '.join(untold[:_NAMED])}{more}"
        notes.append(f"not counted, since TensorRT says no size or type: {what}; the sums are too small by that")
    if found["macs"] is None:
        notes.append("what it multiplies is not known: the sidecar is older and the graph does not lie beside the plan")
    return notes


def traffic_facts(engine: Values) -> dict[str, str]:
    """Of a plan's report, as text by name; {} where none was counted."""
    moved = engine.get("traffic")
    if not moved:
        return {}
    some = f", without {moved['untold']} tensors" if moved["untold"] else ""
    activations = f"{size_text(moved['read_bytes'] + moved['written_bytes'])}{some}"
    return {"activations moved a call": activations, "weights read a call": size_text(moved["weight_bytes"])}


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"
