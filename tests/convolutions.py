"""A network of three convolutions that passes for a HRViT-b1 of any task: for what is about everything around it."""

from __future__ import annotations

from torch import Tensor, nn

from hiresvit.spec import ModelSpec


class Convolutions(nn.Module):
    """Stride 4, 16 channels."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.task = spec.task
        first, *others = nn.Conv2d(3, 16, 3, 4, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.backbone = nn.Sequential(first, *(layer for conv in others for layer in (nn.ReLU(), conv)), nn.ReLU())
        self.head = nn.Conv2d(16, spec.num_classes, 1) if spec.num_classes else nn.Identity()

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: Tensor = self.head(self.backbone(image))
        if self.task == "features":
            return (found,)
        return found.mean((2, 3)) if self.task == "classify" else found
