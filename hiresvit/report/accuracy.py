"""Accuracy as tables for people, from the ``accuracy`` of a document of ``hiresvit eval``."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from hiresvit.report.tables import Values, counted, make_table, number_text

WORDS = {
    "miou": "mIoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "boundary_f": "boundary F",
    "top1": "top-1",
    "top5": "top-5",
}
_MOST = 4  # sides whose classes fit on a page
_CLASSES = (("iou", "IoU"), ("accuracy", "accuracy"), ("boundary_f", "boundary F"))


def accuracy_report(found: Values) -> list[RenderableType]:
    """By which protocol it was measured, a row a side and metric, the classes, the worst pictures."""
    return [
        *_protocol_lines(found),
        _sides_table(found),
        *([_classes_table(found)] if found["task"] == "segment" and len(found["sides"]) <= _MOST else []),
        *_worst_lines(found),
    ]


def _protocol_lines(found: Values) -> list[str]:
    protocol, data = found["protocol"], found["dataset"]
    height, width = protocol["size"]
    ignored = "" if data["ignore"] is None else f", label {data['ignore']} ignored"
    ways = [protocol["scaled"]]
    if protocol["filter"] not in protocol["scaled"]:
        ways.append(protocol["filter"])
    if protocol["flip"]:
        ways.append("mirrored, too, and averaged")
    lines = [
        ", ".join([f"protocol {protocol['name']}: network {height}x{width}", *ways]),
        f"labels: {protocol['labels']}{ignored}",
        *(f"note: {note}" for note in protocol["notes"]),
    ]
    part = "" if found["complete"] else f" of {data['pictures']}, INCOMPLETE"
    images = counted(found["images"], "image")
    lines.append(f"accuracy in % on {images} of {data['name']}{part}, with 95 % intervals")
    if found["task"] == "segment":
        lines.append("boundary F: Csurka et al. 2013, borders within 0.75 % of the diagonal, a mean over pictures")
    return lines


def _sides_table(found: Values) -> Table:
    sides = found["sides"]
    beside = [f">beside {sides[0]['name']}", ">equal answers", "keeps"] if len(sides) > 1 else []
    table = make_table(None, "side", "metric", ">value", ">interval", *beside)
    for side in sides:
        if side["failure"]:
            table.add_row(side["name"], "failed", *[""] * (2 + len(beside)))
        against = side["against"] or {"metrics": {}, "agreement": None, "keeps": ""}
        for number, (name, metric) in enumerate(side["metrics"].items()):
            row = [side["name"] if not number else "", WORDS[name], number_text(metric["value"], ".2f"), _span(metric)]
            if beside:
                difference = against["metrics"].get(name)
                row.append(f"{_signed(difference['difference'])} {_span(difference)}" if difference else "")
                agreement = against["agreement"]
                equal = "" if agreement is None else f"{100 * agreement:.2f} %"
                row += ["", ""] if number else [equal, against["keeps"]]
            table.add_row(*row)
        if side["foreign"]:
            table.add_row("", "no class of the data", f"{100 * side['foreign']:.2f}", "", *[""] * len(beside))
    return table


def _signed(value: float | None) -> str:
    """Never minus nothing."""
    return "" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def _span(metric: Values) -> str:
    if metric["low"] is None or metric["high"] is None:
        return ""
    low, high = (round(metric[end], 2) + 0.0 for end in ("low", "high"))
    return f"{low:.2f} to {high:.2f}"


def _classes_table(found: Values) -> Table:
    """Of one side all that is known of a class, of several their IoUs, of two with the difference."""
    sides = [side for side in found["sides"] if not side["failure"]]
    rows = []
    for number, row in enumerate(sides[0]["classes"]):
        ious = [side["classes"][number]["iou"] for side in sides]
        cells = [number_text(iou, ".2f") for iou in ious]
        if len(sides) == 1:
            cells = [number_text(row[name], ".2f") for name, _ in _CLASSES]
        elif len(sides) == 2:
            cells.append("" if None in ious else _signed(ious[1] - ious[0]))
        rows.append((row["name"], *cells, f"{100 * row['share']:.2f}"))
    columns = [f">{words} %" for _, words in _CLASSES] if len(sides) == 1 else [f">{side['name']}" for side in sides]
    title = "classes" if len(sides) == 1 else "IoU of classes in %"
    columns += [">difference"] if len(sides) == 2 else []
    return make_table(title, "class", *columns, ">share of pixels %", rows=rows)


def _worst_lines(found: Values) -> list[str]:
    lines = []
    for row in found["worst"]:
        drawn = f", drawn in {row['image']}" if row["image"] else ""
        lines.append(f"worst: {worst_words(row)}{drawn}")
    return ["", *lines] if lines else []


def worst_words(row: Values) -> str:
    """What a picture is called, and how it was answered."""
    equal = "" if row["agreement"] is None else f", {100 * row['agreement']:.2f} % equal answers"
    right = ((side["name"], side["accuracy"]) for side in row["sides"] if side["accuracy"] is not None)
    return f"{row['picture']}{equal}: {', '.join(f'{name} {share:.2f} % right' for name, share in right)}"
