"""The form in which a model is exported. Apart from the contract, which a machine without torch reads, too."""

from __future__ import annotations

from torch import Tensor, nn

from hiresvit.models.layers import upsample
from hiresvit.spec import ModelSpec


class Deployed(nn.Module):
    """A model as it is exported: segmentation logits resized to the input's size unless ``resize`` is off."""

    def __init__(self, model: nn.Module, spec: ModelSpec, *, resize: bool = True) -> None:
        super().__init__()
        self.model = model
        self.size = spec.imgsz if resize and spec.task == "segment" else None

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.model(image)
        if self.size is None or isinstance(out, tuple):
            return out
        height, width = self.size
        # A factor and not a size: no shape arithmetic in the graph, whatever the batch is.
        factor = -(-height // out.shape[2])
        out = upsample(out, factor, "bilinear")
        # A family that pads its input has logits for the padding, too.
        return out if tuple(out.shape[2:]) == self.size else out[:, :, :height, :width]
