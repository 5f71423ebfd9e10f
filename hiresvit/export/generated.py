"""An FP16 graph for TensorRT only: written so that more of it ends up inside the kernels that TensorRT generates.

TensorRT-RTX joins pointwise operators, norms and slices in generated kernels. A convolution and a Resize are kernels
of their own, each of which reads and writes whole maps. A depthwise convolution is nine slices times nine weights,
summed: written so, it joins its neighbours. The sums are in FP32 between casts inside the kernel, so that what an FP16
convolution sums in FP32 is not rounded at every step.

Rewritten is what saves bytes (docs/performance.md has the numbers): BatchNorms that only depthwise convolutions read,
with the sums behind those (HIRI-ViT's blocks of two branches), and LayerNorms in front of a depthwise convolution or of
a Concat (MixFormer's mixing).
"""

from __future__ import annotations

from onnx import ModelProto

from hiresvit.export.draft import Site, redraw
from hiresvit.export.generated_image import image_sites
from hiresvit.export.generated_norms import norm_sites
from hiresvit.export.generated_taps import branch_sites
from hiresvit.graph.index import GraphIndex


def for_tensorrt(model: ModelProto) -> ModelProto:
    """A copy of an FP16 graph with the same inputs and outputs, names too; tensors between them may be gone.

    ``model`` is what `hiresvit.export.fp16.to_fp16` makes. A graph without such places comes back as it is; INT8's
    writer wants the graph before this, which has the tensors that were calibrated.
    """
    return redraw(model, _sites)


def _sites(index: GraphIndex) -> list[Site]:
    return [*image_sites(index), *branch_sites(index), *norm_sites(index)]
