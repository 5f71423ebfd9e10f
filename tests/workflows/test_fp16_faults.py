"""A planted overflow misses the gate: in each family's export, in `compare`, in a foreign graph, and in a calibration.

ONNX Runtime's CPU computes FP16 in FP32 between the nodes, so that the answers of each of these are right there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from graphs import build, content, copied
from PIL import Image
from tiny import build_tiny, seven_convolutions, tiny_spec
from torch import nn

from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import sample_images
from hiresvit.errors import GateError
from hiresvit.export.contract import stamp
from hiresvit.export.simplify import SimplifyReport
from hiresvit.models.create import enliven, model_spec
from hiresvit.models.family import build_task
from hiresvit.models.hiri_vit import HiriViT, HiriViTClassifier, HiriViTConfig, HiriViTSegmentor
from hiresvit.models.lrformer import LRFormer, LRFormerClassifier, LRFormerConfig, LRFormerSegmentor
from hiresvit.models.mixformer import MixFormer, MixFormerClassifier, MixFormerConfig, MixFormerSegmentor
from hiresvit.models.zoo import MODELS
from hiresvit.spec import ModelSpec
from hiresvit.workflows import export as pipeline
from hiresvit.workflows import loaded
from hiresvit.workflows.compare import compare_sources
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings
from hiresvit.workflows.open import open_source

FAST = ExportSettings(fp16=True, latency=False, plan=False, images=1, threads=1)
PEAK = 8e4
CLASSES = 5

LRFORMER = LRFormerConfig((16, 32, 40, 32), (1, 1, 1, 1), 0.1, 32, pooled_size=4)
MIXFORMER = MixFormerConfig(16, (1, 1, 1, 1), (1, 2, 4, 8))
HIRI_VIT = HiriViTConfig((8, 12, 16, 64, 128), (1, 1, 1, 1, 1), (2, 1, 2, 1, 2), stem=6)

FAMILIES: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "hrvit_b1": build_tiny,
    "lrformer_t": lambda spec: build_task(spec, LRFORMER, LRFormer, LRFormerClassifier, LRFormerSegmentor),
    "mixformer_b0": lambda spec: build_task(spec, MIXFORMER, MixFormer, MixFormerClassifier, MixFormerSegmentor),
    "hiri_vit_s": lambda spec: build_task(spec, HIRI_VIT, HiriViT, HiriViTClassifier, HiriViTSegmentor),
}


def loud_head(model: nn.Module, spec: ModelSpec, seed: int = 0) -> None:
    """Lively fresh weights, and a head that answers the same in another unit, in which its logits peak at 80,000."""
    enliven(model, spec, seed)
    image = preprocess(sample_images(1, spec.imgsz)[0], spec.preprocess, spec.imgsz)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.shape[0] == CLASSES]
    with torch.no_grad():
        factor = PEAK / float(model(torch.from_numpy(image)).abs().max())
        for value in layers[-1].parameters():
            value.mul_(factor)


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Tiny models stand in for each family's first variant; their graphs are not simplified, which takes longest."""
    monkeypatch.setattr(pipeline, "simplify", lambda graph: (graph, SimplifyReport(0, 0, None)))
    for name, build_small in FAMILIES.items():
        monkeypatch.setitem(MODELS, name, replace(MODELS[name], build=build_small))
    return monkeypatch


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_familys_export_and_compare(name: str, tmp_path: Path, exporting: pytest.MonkeyPatch) -> None:
    spec = model_spec(name, "classify", (64, 64), CLASSES)
    exporting.setattr(loaded, "enliven", loud_head)
    kept: dict[str, bytes] = {}
    save = pipeline._save

    def keep(job: Any, described: Any, stage: str, graph: Any) -> None:
        save(job, described, stage, graph)
        kept[stage] = content(graph)

    exporting.setattr(pipeline, "_save", keep)
    with pytest.raises(GateError) as caught:
        export_bundle(spec, tmp_path / "bundle", FAST, command=["hiresvit"])
    assert caught.value.exit_code == 4
    said = str(caught.value)
    assert said.startswith("fp16: '")
    assert "of module head" in said
    assert "FP16 ends at 65504" in said
    assert list(tmp_path.iterdir()) == []

    for stage in ("simplified", "fp16"):
        (tmp_path / f"{stage}.onnx").write_bytes(kept[stage])
    single, half = (open_source(str(tmp_path / f"{stage}.onnx"), threads=1) for stage in ("simplified", "fp16"))
    found, missed = compare_sources(single, half, [], drawn=1, limits={})
    plain, exact = found["stages"]
    assert plain["report"]["outputs"][0]["sqnr_db"] > 38, "ONNX Runtime shows nothing of it"
    assert exact["report"]["outputs"][0]["non_finite"] > 0
    assert found["fp16"][0]["headroom"]["share"] > 1
    assert missed is not None
    assert "of module head" in str(missed)
    back, missed = compare_sources(half, single, [], drawn=1, limits={})
    assert len(back["stages"]) == 1
    assert missed is not None, "either side counts"


class Foreign(nn.Module):
    """Conv, ReLU, Conv with 80,000 between them, as somebody else may have trained it."""

    def __init__(self, between: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, CLASSES, 1)
        with torch.no_grad():
            self.first.weight.fill_(0).view(4, 3)[:, 0] = torch.tensor([1.0, -1, 2, -2])
            self.first.weight.mul_(between / 4)
            self.second.weight.div_(between / 100)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.relu(self.first(image)))
        return out


def exported_by_torch(model: nn.Module, path: Path, *, half: bool) -> Path:
    """As PyTorch's own exporter writes it; half precision with FP16 at both ends."""
    kind = torch.float16 if half else torch.float32
    program = torch.onnx.export(
        model.to(kind).eval(),
        (torch.zeros(1, 3, 64, 96, dtype=kind),),
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    if not half:
        stamp(proto, tiny_spec(), "simplified")  # one of the two has to say how it takes a picture
    path.write_bytes(content(proto))
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of PyTorch's exporter
@pytest.mark.parametrize("between", [80.0, 80000.0])
def test_a_foreign_graph(between: float, tmp_path: Path, cli: Cli) -> None:
    single = exported_by_torch(Foreign(between), tmp_path / "single.onnx", half=False)
    half = exported_by_torch(Foreign(between), tmp_path / "theirs.onnx", half=True)
    result = cli("compare", single, half, "--images", "2", "--min-sqnr", "40", "--json")
    document = json.loads(result.out)
    plain, exact = document["parity"]["stages"]
    assert (plain["stage"], exact["stage"]) == ("theirs.onnx", "theirs.onnx (fp16 exact)")
    assert plain["report"]["outputs"][0]["sqnr_db"] > 50
    [row] = document["parity"]["fp16"]
    assert (row["graph"], row["headroom"]["images"], row["underflow"]) == ("theirs.onnx", 2, [])
    if between < 1000:
        assert (result.code, "error" in document) == (0, False)
        assert 60 / 65504 < row["headroom"]["share"] < 120 / 65504
        table = cli("compare", single, half, "--images", "1").out
        assert "theirs.onnx: at most 0.1" in table
        assert "% of FP16's range" in table
        return
    assert result.code == 4
    assert row["headroom"]["share"] > 1
    assert "theirs.onnx: '" in document["error"]["message"]
    assert "on image 0 of 2" in document["error"]["message"]


def test_what_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    for name, model in zip("ab", map(copied, seven_convolutions()), strict=True):
        stamp(model, tiny_spec(), "fp16")
        (tmp_path / f"{name}.onnx").write_bytes(content(model))
    a, b = (open_source(str(tmp_path / name), threads=1) for name in ("a.onnx", "b.onnx"))
    (tmp_path / "b.onnx").write_bytes(b"gone")
    found, missed = compare_sources(a, b, [], drawn=1, limits={})
    assert missed is None
    assert len(found["stages"]) == 1
    [note] = found["notes"]
    assert note.startswith("b.onnx: whether FP16 holds its values was not looked at: ")


# White becomes 7.3, black -5.9: ten thousand times as much is beyond FP16's end for white alone.
BRIGHT = """g (float[1,3,32,32] image) => (float[1,5,32,32] logits) {
  a = Conv(image, w) b = Relu(a) c = Conv(b, u) logits = Conv(c, v)
}"""


@pytest.mark.parametrize("white", [False, True])
def test_one_picture_of_those_that_calibrate(white: bool, tmp_path: Path, cli: Cli) -> None:
    rng = np.random.default_rng(0)
    weight = np.zeros((16, 3, 1, 1), np.float32)
    weight[:8], weight[8:] = 1e4, rng.normal(0, 1, (8, 3, 1, 1))
    quiet = {name: rng.normal(0, 1e-3, (wide, 16, 1, 1)).astype(np.float32) for name, wide in (("u", 16), ("v", 5))}
    graph = build(BRIGHT, {"w": weight, **quiet})
    for node, name in zip(graph.graph.node, ("first", "act", "second", "last"), strict=True):
        node.name = f"{name}/{node.op_type}"
    stamp(graph, replace(tiny_spec(), imgsz=(32, 32)), "simplified")
    (tmp_path / "simple.onnx").write_bytes(content(graph))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        value = 250 if white and number == 4 else 20 + 10 * number
        Image.fromarray(rng.integers(value, value + 6, (40, 40, 3), np.uint8)).save(pictures / f"{number}.png")
    target = tmp_path / "int8.onnx"
    result = cli("calibrate", tmp_path / "simple.onnx", "--calib", pictures, "-o", target, "--json", "--threads", "1")
    if not white:
        assert result.code == 0, result.err
        found = json.loads(result.out)["int8"]
        assert found["headroom"]["images"] == 6
        assert found["headroom"]["share"] < 1
        return
    assert result.code == 4
    assert "fp16: 'a' of module first reaches" in result.err
    assert not target.exists()
