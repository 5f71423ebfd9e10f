"""An FP16 or INT8 graph for TensorRT only: the same numbers with fewer bytes between its kernels.

TensorRT makes one kernel of whatever moves, adds and multiplies number by number, norms among it, and puts what stands
behind a product into that product's kernel. A depthwise convolution and a norm in front of a product are kernels of
their own, each of which reads and writes whole maps. They are written here with operators that it joins to their
neighbours. Sums are FP32 between casts inside the kernel, so that what an FP16 convolution sums in FP32 is not rounded
at every step.

Only what saves bytes is written anew (docs/performance.md has the numbers). ONNX Runtime has a kernel for each operator
and would take longer for all of it.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto

from hiresvit.export.draft import Site, redraw
from hiresvit.export.tensorrt_image import image_sites
from hiresvit.export.tensorrt_norms import norm_sites
from hiresvit.export.tensorrt_products import product_sites
from hiresvit.export.tensorrt_resizes import resize_sites
from hiresvit.export.tensorrt_taps import branch_sites, lone_sites
from hiresvit.graph.index import GraphIndex

SITES = {
    "image": image_sites,
    "branches": branch_sites,
    "norms": norm_sites,
    "products": product_sites,
    "convolutions": lone_sites,
    "resizes": resize_sites,
}
"""What is written anew, by kind; a place that two of them find is the first one's."""


def for_tensorrt(model: ModelProto, kinds: Collection[str] = tuple(SITES)) -> ModelProto:
    """A copy of an FP16 graph with the same inputs and outputs, names too; tensors between them may be gone.

    ``model`` is what `hiresvit.export.fp16.to_fp16` makes, or that with Q/DQ in it, where what is quantized stays: the
    writer of INT8 wants the graph before this, which has the tensors that were calibrated. A graph without such places
    comes back as it is.
    """
    return redraw(model, lambda index: _sites(index, kinds))


def _sites(index: GraphIndex, kinds: Collection[str]) -> list[Site]:
    sites: list[Site] = []
    for kind in kinds:
        taken = {name for site in sites for name in (site.output, *site.gone)}
        sites += [site for site in SITES[kind](index) if taken.isdisjoint((site.output, *site.gone))]
    return sites
