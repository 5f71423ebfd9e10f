"""The options that say by which protocol accuracy is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from hiresvit.errors import UsageError

if TYPE_CHECKING:
    from hiresvit.evaluation.protocol import Protocol
    from hiresvit.spec import ContractSpec, ModelSpec


@dataclass(frozen=True)
class ProtocolOptions:
    """How pictures are answered."""

    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            help="own (default: as the network says), cityscapes-slide, cityscapes-whole, ade20k-keep, ade20k-fit or"
            " imagenet-center.",
        ),
    ] = None
    flip: Annotated[bool, typer.Option("--flip", help="Answer the mirrored picture, too, and average.")] = False
    scales: Annotated[
        str | None,
        typer.Option("--scales", metavar="X,X,...", help="Sizes to answer and average: 0.5,0.75,1,1.25,1.5,1.75."),
    ] = None

    def find(self, spec: ModelSpec, contract: ContractSpec) -> Protocol:
        """The protocol for one network. Raises UsageError as `find_protocol` does."""
        from hiresvit.evaluation.protocol import SINGLE, find_protocol

        scales = SINGLE if self.scales is None else _numbers(self.scales)
        return find_protocol(self.protocol, spec, contract, flip=self.flip, scales=scales)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--scales {text}: give numbers with commas between them, such as 0.75,1,1.25") from None
