"""What every family refuses in the same words."""

from __future__ import annotations

from torch import Tensor

from hiresvit.errors import UsageError


def require_rate(drop_path: float) -> None:
    """Raise UsageError unless this is a rate of stochastic depth."""
    if not isinstance(drop_path, float | int) or not 0.0 <= drop_path < 1.0:
        raise UsageError(f"drop_path={drop_path!r}: give a rate from 0 to below 1")


def require_multiples(imgsz: tuple[int, int], unit: int, who: str, hint: str = "") -> None:
    """Raise UsageError, with the nearest sizes, unless height and width are multiples of ``unit``."""
    if all(side >= unit and side % unit == 0 for side in imgsz):
        return
    below = "x".join(str(max(unit, side // unit * unit)) for side in imgsz)
    above = "x".join(str(max(unit, -(-side // unit) * unit)) for side in imgsz)
    options = above if above == below else f"{below} or {above}"
    raise UsageError(f"{imgsz[0]}x{imgsz[1]}: {who} takes multiples of {unit} on both sides; nearest: {options}{hint}")


def require_laid_out(image: Tensor, imgsz: tuple[int, int]) -> None:
    """Raise UsageError unless images (B, 3, H, W) have the size that the model was laid out at."""
    if tuple(image.shape[2:]) != imgsz:
        got = f"{image.shape[2]}x{image.shape[3]}"
        raise UsageError(f"an input of {got} for a model laid out at {imgsz[0]}x{imgsz[1]}")
