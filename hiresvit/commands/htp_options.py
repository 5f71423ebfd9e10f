"""The options of `hiresvit export` about graphs for Qualcomm's HTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hiresvit.commands.options import CalibrationOptions, Texts
from hiresvit.device.chips import CHIPS, DEFAULT_FLOAT, DEFAULT_INTEGER, find_chip
from hiresvit.errors import UsageError
from hiresvit.spec import HTP_FORMS, HtpForm

if TYPE_CHECKING:
    from hiresvit.workflows.htp_export import HtpOrder


@dataclass(frozen=True)
class HtpOptions:
    """Which forms of the graph an HTP gets, and which chip it is on."""

    htp: Annotated[
        Texts,
        typer.Option(
            "--htp",
            metavar="|".join(HTP_FORMS),
            help="Make a graph for Qualcomm's HTP, in FP16 or integers; may be given several times.",
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="CHIP",
            help=f"The HTP's chip: {', '.join(CHIPS)}; default: {DEFAULT_FLOAT.name} for fp16, else"
            f" {DEFAULT_INTEGER.name}.",
        ),
    ] = None
    emulate: Annotated[
        Literal["small", "full", "none"] | None,
        typer.Option("--emulate", help="Size at which Qualcomm's emulator runs the HTP's graphs; default: small."),
    ] = None

    @property
    def forms(self) -> tuple[HtpForm, ...]:
        """Each that was asked for, once. Raises UsageError for one that there is not."""
        texts = self.htp or []
        if unknown := [text for text in texts if text not in HTP_FORMS]:
            raise UsageError(f"--htp {unknown[0]}: one of {', '.join(HTP_FORMS)}")
        return tuple(form for form in HTP_FORMS if form in texts)

    @property
    def quantized(self) -> bool:
        """Whether one of them is calibrated."""
        return any(form != "fp16" for form in self.forms)

    def order(self, calibration: CalibrationOptions, threads: int | None) -> HtpOrder | None:
        """What they ask for, None for nothing. Raises UsageError without what it needs."""
        given = {"--target": self.target, "--emulate": self.emulate}
        if not self.forms:
            if lone := [f"{name} {value}" for name, value in given.items() if value is not None]:
                raise UsageError(f"{', '.join(lone)}: for --htp, which is not given")
            return None
        asked = [self._asked(form, calibration) for form in self.forms]
        from hiresvit.workflows.htp import HtpSettings
        from hiresvit.workflows.htp_export import HtpOrder

        return HtpOrder(tuple(HtpSettings(**one, threads=threads) for one in asked), self.emulate or "small")

    def _asked(self, form: HtpForm, calibration: CalibrationOptions) -> dict[str, Any]:
        """Fields of the settings of a form."""
        chip = find_chip(self.target) if self.target else DEFAULT_FLOAT if form == "fp16" else DEFAULT_INTEGER
        if form == "fp16":
            return {"calib": "", "form": form, "chip": chip}
        chosen = calibration.chosen(f"--htp {form}")
        for name in ("residual", "attention", *(() if form == "a8w8" else ("max_drop",))):
            chosen.pop(name, None)
        return {**chosen, "form": form, "chip": chip}
