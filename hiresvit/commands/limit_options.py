"""The options that say how far a network may be from its reference."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from hiresvit.commands.options import Texts
from hiresvit.errors import UsageError

if TYPE_CHECKING:
    from hiresvit.evaluation.parity import Gate

LIMITS = {"min_sqnr_db": "--min-sqnr", "min_cosine": "--min-cosine", "min_agreement": "--min-agreement"}


@dataclass(frozen=True)
class LimitOptions:
    """How far a network may be from its reference."""

    min_sqnr: Annotated[Texts, typer.Option("--min-sqnr", metavar="DB", help="Least SQNR in dB.")] = None
    min_cosine: Annotated[Texts, typer.Option("--min-cosine", metavar="X", help="Least cosine.")] = None
    min_agreement: Annotated[
        Texts, typer.Option("--min-agreement", metavar="X", help="Least share of equal answers, 0 to 1.")
    ] = None

    def gates(self, without: Collection[str]) -> dict[str, Gate]:
        """The default gates with what was set: VALUE for all stages, STAGE=VALUE for one, whatever the order.

        ``without`` are the stages that this export does not have.
        """
        from hiresvit.evaluation.parity import GATES

        gates = {stage: gate for stage, gate in GATES.items() if stage not in without}
        for measure, option, given in self._rows():
            for text in sorted(given, key=lambda text: "=" in text):  # what is said of one stage counts more
                name, _, number = text.rpartition("=")
                if name and name not in gates:
                    raise UsageError(f"{option} {text}: the stages of this export are {', '.join(gates)}")
                value = _limit(option, number)
                for stage in [name] if name else list(gates):
                    gates[stage] = replace(gates[stage], **{measure: value})
        return gates

    def limits(self) -> dict[str, float]:
        """Those of one comparison; what was not given is not there."""
        return {measure: _limit(option, given[-1]) for measure, option, given in self._rows() if given}

    def _rows(self) -> list[tuple[str, str, list[str]]]:
        texts = (self.min_sqnr, self.min_cosine, self.min_agreement)
        return [(*row, given or []) for row, given in zip(LIMITS.items(), texts, strict=True)]


def _limit(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} {text}: give a number")
    if option != "--min-sqnr" and not 0 <= value <= 1:
        raise UsageError(f"{option} {text}: give a value from 0 to 1")
    return value
