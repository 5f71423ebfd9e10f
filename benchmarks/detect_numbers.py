"""Parameters and multiply-accumulates of the RetinaNets beside the paper's: the table of docs/detect.md.

    python benchmarks/detect_numbers.py [--write]

Exact counts, no measurement: the same on every machine. `--write` puts the table into docs/detect.md. HIRI-ViT's paper
counts at 1600x1200, whose sides the backbones do not take: ours is on the line between the counts at 1600x1152 and
1600x1216, the nearest that every family takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from paper_numbers import against, with_table

from hiresvit.models.create import build_model, model_spec
from hiresvit.models.macs import count_macs, count_params
from hiresvit.models.zoo import MODELS

DOCUMENT = Path(__file__).parents[1] / "docs" / "detect.md"
BEGIN, END = "<!-- detect-numbers: benchmarks/detect_numbers.py --write -->", "<!-- /detect-numbers -->"
PAPER = {"hiri_vit_s": (41.1, 139.0), "hiri_vit_b": (59.8, 202.0)}  # millions, billions
LONG, BROAD, NARROWER, WIDER = 1600, 1200, 1152, 1216


def count(name: str) -> tuple[int, float]:
    """Parameters, and multiply-accumulates at 1600x1200."""
    macs = []
    for width in (NARROWER, WIDER):
        spec = model_spec(name, "detect", (LONG, width))
        with torch.device("meta"):  # only shapes matter
            model = build_model(spec)
        macs.append(count_macs(model, spec.imgsz).total)
    share = (BROAD - NARROWER) / (WIDER - NARROWER)
    return count_params(model), macs[0] + share * (macs[1] - macs[0])


def table(names: list[str]) -> str:
    """A row for each model; of those that the paper has no detector of, what we count alone."""
    lines = ["| model | params, paper | ours | diff. | MACs, paper | ours | diff. |", "|---|---|---|---|---|---|---|"]
    for name in names:
        params, macs = count(name)
        cells = []
        for value, unit, digits, paper in zip(
            (params / 1e6, macs / 1e9), "MG", (3, 2), PAPER.get(name, (None, None)), strict=True
        ):
            ours = f"{value:.{digits}f} {unit}"
            cells += ["", ours, ""] if paper is None else [f"{paper:g} {unit}", *against(paper, value, unit, digits)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update docs/detect.md")
    text = table([name for name, entry in MODELS.items() if "detect" in entry.numbers])
    if parser.parse_args().write:
        document = DOCUMENT.read_text(encoding="utf-8")
        if BEGIN not in document or END not in document:
            parser.error(f"{DOCUMENT} has no place for the table: {BEGIN} and {END}")
        DOCUMENT.write_text(with_table(document, text, BEGIN, END), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
