"""Small graphs on Qualcomm's emulator, in dB against FP32: what each operator keeps, and which are wrong.

    python benchmarks/htp_operators.py [--chips xr2-gen2 sm8650 ar1] [--write]

The graphs are those of tests/check/corpus_htp.py, which `hiresvit check` is held to. ``--write`` puts the table into
docs/htp.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from paper_numbers import with_table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "check")]
from corpus_htp import HTP  # noqa: E402  (what the tests have)
from test_htp_corpus import Emulator  # noqa: E402

DOCUMENT = ROOT / "docs" / "htp.md"
BEGIN, END = "<!-- htp-operators: benchmarks/htp_operators.py --write -->", "<!-- /htp-operators -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", default=["xr2-gen2", "sm8650", "ar1"])
    parser.add_argument("--write", action="store_true", help="update docs/htp.md")
    args = parser.parse_args()
    lines = [f"| graph | {' | '.join(args.chips)} |", "|---|" + "---|" * len(args.chips)]
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator(Path(folder))
        for entry in HTP:
            found = [shown(emulator(entry, chip)) for chip in args.chips]
            lines.append(f"| {entry.name} | {' | '.join(found)} |")
            print(lines[-1], flush=True)
        emulator.worker.close()
    if args.write:
        DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "\n".join(lines), BEGIN, END))


def shown(found: float | None) -> str:
    """A number of dB, or what there is in its place."""
    if found is None:
        return "refused"
    if found == -math.inf:
        return "fails, or NaN"
    return "exact" if found == math.inf else f"{found:.1f}"


if __name__ == "__main__":
    main()
