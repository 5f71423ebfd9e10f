"""What Qualcomm's emulator makes of the graphs of an export: at their own size, or those of the same network at a small
one, since a picture takes it seconds for each billion of multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.device.chips import Chip
from hiresvit.device.qnn_api import emulated, installed_version, require_library
from hiresvit.engine.htp import compile_graph
from hiresvit.errors import GateError, HiresvitError, IllegalGraphError, MissingDependency
from hiresvit.evaluation.parity import Gate, compare, enforce
from hiresvit.export.contract import INPUT
from hiresvit.export.deployed import Deployed
from hiresvit.export.onnx import export_onnx
from hiresvit.export.simplify import simplify
from hiresvit.files import scratch_folder
from hiresvit.models.create import build_model
from hiresvit.models.fold import fold
from hiresvit.progress import OnStep
from hiresvit.runtime.onnxruntime_runner import OnnxRuntimeRunner
from hiresvit.runtime.qnn_runner import QnnRunner
from hiresvit.runtime.runner import Runner
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import Feed, HtpForm, ModelSpec
from hiresvit.workflows.htp import HtpSettings, make_htp

Emulate = Literal["small", "full", "none"]
IMAGES = 2
"""How many pictures are emulated at most."""
# The shorter side at which every part of a family has a say: HRViT's last stripes are two, padded and masked (at 64
# there is one), LRFormer pools its first maps, HIRI-ViT's last have more than one pixel, and MixFormer has several
# windows in two stages and padded ones in the others.
_SIDES = {"hrvit": 128, "lrformer": 128, "mixformer": 64, "hiri_vit": 128}


@dataclass(frozen=True)
class Network:
    """One network at one size: as PyTorch computes it, with pictures, and its graphs by form."""

    spec: ModelSpec
    reference: Runner
    feeds: Sequence[Feed]
    graphs: Mapping[HtpForm, Path]


def small_spec(spec: ModelSpec) -> ModelSpec:
    """The spec with the smallest size at which all of the network has a say, about as wide as it is high as before.

    A size that is not larger than that stays.
    """
    height, width = spec.imgsz
    short, step = _SIDES[spec.family], max(32, *spec.strides)
    if min(height, width) <= short:
        return spec
    high, wide = (step * round(short * side / min(height, width) / step) for side in (height, width))
    preprocess = spec.preprocess
    if preprocess.resize == "slide":  # its windows are those of the large size
        preprocess = replace(preprocess, resize="stretch", stride=None, short_side=None)
    return replace(spec, imgsz=(high, wide), preprocess=preprocess)


def why_not() -> str | None:
    """Why nothing can be emulated on this machine, None where it can."""
    try:
        require_library()
    except MissingDependency as error:
        return str(error)
    return None if emulated() else "the emulator runs on x86-64 only"


@contextmanager
def small_network(
    model: nn.Module, spec: ModelSpec, settings: Sequence[HtpSettings], *, opset: int, resize: bool, on_step: OnStep
) -> Iterator[Network]:
    """The network of a model, which is not folded, at another size, with its weights and graphs in the same forms.

    The graphs are made anew, calibrated on the same pictures at that size, and gone in the end.
    """
    size = "x".join(map(str, spec.imgsz))
    on_step(f"htp: export at {size}", None)
    small = build_model(spec)
    small.load_state_dict(model.state_dict())
    simple, _ = simplify(export_onnx(fold(small), spec, opset=opset, resize=resize))
    with scratch_folder() as folder:
        plain = folder / "simplified.onnx"
        plain.write_bytes(simple.SerializeToString())
        with OnnxRuntimeRunner(plain) as runner:
            ends = runner.inputs, runner.outputs
        graphs: dict[HtpForm, Path] = {}
        table = None
        for one in settings:
            on_step(f"htp_{one.form}: make at {size}", None)
            made = make_htp(simple, spec, one, table=table, on_step=on_step)
            table = made.table or table
            graphs[one.form] = folder / f"{one.form}.onnx"
            graphs[one.form].write_bytes(made.graph.SerializeToString())
        with TorchRunner(Deployed(small, spec, resize=resize), *ends, settings[0].threads) as reference:
            yield Network(spec, reference, pictures(spec), graphs)


def pictures(spec: ModelSpec) -> list[Feed]:
    """Drawn streets of the network's size."""
    return [{INPUT: example_input(image, spec.preprocess, spec.imgsz)} for image in sample_images(IMAGES, spec.imgsz)]


def emulate(network: Network, form: HtpForm, chip: Chip, gate: Gate, on_step: OnStep) -> dict[str, Any]:
    """``emulated`` and ``refused`` of a manifest: how far the emulator is from PyTorch, or the nodes it does not take.

    Raises GateError if it is further than the gate allows, or fails on a picture.
    """
    graph, size = network.graphs[form], "x".join(map(str, network.spec.imgsz))
    on_step(f"htp_{form}: emulate {chip.name} at {size}", None)
    stage = f"htp_{form} emulated"
    feeds = network.feeds[:IMAGES]
    try:
        with QnnRunner(graph, detail=chip.name) as runner:
            report = compare(network.reference, runner, feeds, network.spec.task, network.spec.anchors)
    except IllegalGraphError as error:
        found = compile_graph(graph, chip)
        if not found.refused:
            raise GateError(f"{stage}: {error}; --emulate none leaves it out") from error
        return {"emulated": None, "refused": [asdict(node) for node in found.refused]}
    except MissingDependency:
        raise
    except HiresvitError as error:
        raise GateError(f"{stage}: {error}; --emulate none leaves it out") from error
    enforce(report, gate, stage)
    values = {"imgsz": list(network.spec.imgsz), "images": len(feeds), "version": installed_version() or ""}
    return {"emulated": {**values, "gate": asdict(gate), "report": report.to_json()}, "refused": []}
