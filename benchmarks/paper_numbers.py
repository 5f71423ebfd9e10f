"""Parameters and multiply-accumulates of every model beside the paper's: the table of docs/models.md.

    python benchmarks/paper_numbers.py [--write]

Exact counts, no measurement: the same on every machine. `--write` puts the table into docs/models.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hiresvit.models import MODELS, build_model, model_spec
from hiresvit.models.macs import Macs, count_macs, count_params
from hiresvit.spec import Task

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- paper-numbers: benchmarks/paper_numbers.py --write -->", "<!-- /paper-numbers -->"


@dataclass(frozen=True)
class Row:
    """One line of a paper's table (parameters in millions, MACs in billions) and what makes its model."""

    model: str
    what: str
    task: Task
    params: float
    macs: float
    imgsz: tuple[int, int]
    num_classes: int | None = None
    overrides: dict[str, tuple[int, ...]] = field(default_factory=dict)


# What the paper has beyond the registry: ADE20K with its 150 classes, and b3's wider windows on Cityscapes.
EXTRA = (
    Row("hrvit_b1", "segment, 150 classes", "segment", 8.2, 14.6, (512, 512), 150),
    Row("hrvit_b2", "segment, 150 classes", "segment", 20.8, 28.0, (512, 512), 150),
    Row("hrvit_b3", "segment, 150 classes", "segment", 28.7, 67.9, (512, 512), 150),
    Row(
        "hrvit_b3",
        "segment, windows 1-2-9-9",
        "segment",
        28.6,
        66.78,
        (512, 512),
        overrides={"windows": (1, 2, 9, 9)},
    ),
)


@dataclass(frozen=True)
class Count:
    """A row with what our model has."""

    row: Row
    params: int
    macs: Macs


def rows() -> Iterator[Row]:
    for name, entry in MODELS.items():
        for task, published in entry.published.items():
            yield Row(name, task, task, published.params, published.macs, published.imgsz)
    yield from EXTRA


def count(row: Row) -> Count:
    spec = model_spec(row.model, row.task, row.imgsz, row.num_classes, **row.overrides)
    with torch.device("meta"):  # only shapes matter
        model = build_model(spec)
    return Count(row, count_params(model), count_macs(model, spec.imgsz))


def table(counts: list[Count]) -> str:
    lines = [
        "| model | task | size | params, paper | ours | diff. | MACs, paper | ours, alike | diff. | ours, all |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(counts, key=lambda one: (one.row.task, one.row.model)):
        row, params, macs = one.row, one.params / 1e6, one.macs.paper / 1e9
        cells = (
            f"{row.model} | {row.what} | {row.imgsz[0]}x{row.imgsz[1]}",
            f"{row.params} M | {params:.3f} M | {params / row.params - 1:+.1%}",
            f"{row.macs} G | {macs:.2f} G | {macs / row.macs - 1:+.1%} | {one.macs.total / 1e9:.2f} G",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(document: str, text: str) -> str:
    """The document with ``text`` between its two markers."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update docs/models.md")
    text = table([count(row) for row in rows()])
    if parser.parse_args().write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), text))
    print(text)


if __name__ == "__main__":
    main()
