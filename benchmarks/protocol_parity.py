"""mmsegmentation's own inference against our protocols, of one network at the papers' sizes.

The network is one convolution and an answer by where in its window something is, so that a window or a mirror image in
another place is seen. mmsegmentation's transforms scale and mirror, its `EncoderDecoder` slides, resizes and takes the
softmax, its `SegTTAModel` averages; ours answers by the protocol's name. mmsegmentation needs mmcv, whose compiled
operators nothing here calls. In an environment with ``pip install`` of `PACKAGES`, from the root of the repository:

    PYTHONPATH=. python benchmarks/protocol_parity.py
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiresvit.data.scenes import sample_image
from hiresvit.evaluation.passes import Passes
from hiresvit.evaluation.protocol import answerer, find_protocol
from hiresvit.models.create import model_spec
from hiresvit.runtime.picture_runner import LabelMap
from hiresvit.runtime.torch_runner import TorchRunner
from hiresvit.spec import ContractSpec, TensorSpec

PACKAGES = "torch mmsegmentation==1.2.2 mmcv-lite==2.1.0 mmengine ftfy regex opencv-python-headless"
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CLASSES = 8  # mmsegmentation keeps every pass, at the picture's size
LIMIT = 1e-4  # float32 costs 3e-7, and 1e-5 where PyTorch's float32 places a pixel beside it; a wrong window 1e-1
Size = tuple[int, int]


class Network(nn.Module):
    """A convolution, and an answer by where in its input something is; of any size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, CLASSES, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.convolution(image)
        ramp = torch.linspace(-1, 1, logits.shape[1])[:, None, None]
        return logits + ramp * torch.linspace(-1, 1, logits.shape[3])


def rows() -> list[tuple[str, Size, Size, dict[str, Any]]]:
    """Protocol, network's size, picture's size, options."""
    street, photo = (1024, 2048), (600, 800)
    large = (1.0, 1.25, 1.5)  # at a smaller scale mmsegmentation's window is smaller, which a static network's is not
    return [
        ("cityscapes-slide", (1024, 1024), street, {}),
        ("cityscapes-slide", (512, 512), street, {"flip": True}),
        ("cityscapes-slide", (512, 512), street, {"scales": SCALES}),
        ("cityscapes-slide", (512, 512), street, {"scales": SCALES, "flip": True}),
        ("cityscapes-whole", (1024, 2048), street, {"flip": True}),
        ("ade20k-keep", (512, 512), photo, {}),
        ("ade20k-keep", (512, 512), (800, 600), {"flip": True}),
        ("ade20k-keep", (512, 512), photo, {"scales": large, "flip": True}),
        ("ade20k-keep", (640, 640), photo, {"scales": large, "flip": True}),
    ]


def by_mmseg(
    network: Network, name: str, imgsz: Size, image: NDArray[np.uint8], options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The averaged probabilities (C, H, W), and the labels that mmsegmentation takes of them."""
    segmentors = importlib.import_module("mmseg.models.segmentors")
    structures = importlib.import_module("mmseg.structures")
    transforms = importlib.import_module("mmcv.transforms")
    config = importlib.import_module("mmengine").ConfigDict
    stride = (imgsz[0] * 3 // 4, imgsz[1] * 3 // 4)
    slide = config(mode="slide", crop_size=imgsz, stride=stride)
    segmentor = segmentors.EncoderDecoder.__new__(segmentors.EncoderDecoder)
    nn.Module.__init__(segmentor)
    segmentor.test_cfg = config(mode="whole") if name == "cityscapes-whole" else slide
    segmentor.out_channels, segmentor.align_corners = CLASSES, False
    segmentor.decode_head = types.SimpleNamespace(threshold=None)
    segmentor.encode_decode = lambda inputs, metas: network(inputs)
    short, long = (1024, 2048) if name.startswith("cityscapes") else (512, 2048) if imgsz[0] == 512 else (640, 2560)
    samples = []
    for scale in options.get("scales", (1.0,)):
        for flip in (False, True)[: 1 + options.get("flip", False)]:
            data = {"img": np.ascontiguousarray(image[..., ::-1]), "img_shape": image.shape[:2]}
            data = transforms.Resize(scale=(int(long * scale), int(short * scale)), keep_ratio=True)(data)
            data = transforms.RandomFlip(prob=float(flip), direction="horizontal")(data)
            x = torch.from_numpy(np.ascontiguousarray(data["img"][..., ::-1])).permute(2, 0, 1)[None].float()
            mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])[..., None, None]
            meta = {
                "ori_shape": image.shape[:2],
                "img_shape": tuple(x.shape[2:]),
                "padding_size": [0, 0, 0, 0],
                "flip": data["flip"],
                "flip_direction": data["flip_direction"],
                "img_path": "",
            }
            sample = structures.SegDataSample(metainfo=meta)
            sample.gt_sem_seg = importlib.import_module("mmengine.structures").PixelData()  # none is looked at
            samples += segmentor.predict((x - mean) / std, [sample])
    merged = segmentors.SegTTAModel.merge_preds(types.SimpleNamespace(module=segmentor), [samples])[0]
    total = sum((one.seg_logits.data.softmax(0) for one in samples), torch.zeros(()))
    return total / len(samples), merged.pred_sem_seg.data


@torch.no_grad()
def measured(row: tuple[str, Size, Size, dict[str, Any]]) -> tuple[int, float, float]:
    """How many passes, the largest difference of a probability, and the share of equal labels."""
    name, imgsz, size, options = row
    network, image = Network().eval(), sample_image(5, *size)
    spec = model_spec("hrvit_b1", "segment", imgsz, CLASSES)
    sides = (TensorSpec("image", "float32", (1, 3, *imgsz)),), (TensorSpec("logits", "float32", ()),)
    protocol = find_protocol(name, spec, ContractSpec(), **options)
    ours = answerer(TorchRunner(network, *sides), spec, ContractSpec(), protocol)
    assert isinstance(ours, Passes)
    expected, labels = by_mmseg(network, name, imgsz, image, options)
    found = ours.predict(image)
    assert isinstance(found, LabelMap)
    difference = float(np.abs(ours.probabilities(image) - expected.numpy()).max())
    return protocol.passes, difference, float((found.labels == labels.numpy().squeeze()).mean())


def without_operators() -> None:
    """Stand in for mmcv's compiled operators, which mmsegmentation imports; none of them is called."""

    class Operators(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    sys.modules["mmcv.ops"] = Operators("mmcv.ops")
    warnings.filterwarnings("ignore")


def main() -> int:
    """Print the table; 1 if a probability differs by more than `LIMIT`."""
    without_operators()
    names = ("mmsegmentation", "mmcv-lite", "mmengine", "torch", "numpy")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    print("| protocol | network | picture | passes | a probability differs by | equal labels |")
    print("|---|---|---|--:|--:|--:|")
    failed = False
    for row in rows():
        passes, difference, equal = measured(row)
        failed |= difference > LIMIT
        name, imgsz, size, options = row
        what = " ".join(
            [*(["flip"] if options.get("flip") else []), *(f"{one:g}" for one in options.get("scales", ()))]
        )
        shown = f"{name}, {what}" if what else name
        print(
            f"| {shown} | {imgsz[0]}x{imgsz[1]} | {size[0]}x{size[1]} | {passes} | {difference:.1e} | {equal:.4%} |",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
