"""Windows of 1024x1024, 768 apart, over a picture of 1024x2048: `Predictor`'s labels against the same in PyTorch.

    python benchmarks/sliding_window.py --weights hrvit_b1_scenes.safetensors

The one side is what `Predictor(slide=...)` calls, on ONNX Runtime; the other PyTorch's logits of each window by a loop
of its own, added up and divided by how many windows a pixel is in, `interpolate` to another size, argmax. Also printed
is how far the averaged logits are apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hiresvit.data.preprocess import normalise
from hiresvit.data.scenes import sample_image
from hiresvit.evaluation.parity import compare_arrays
from hiresvit.export.contract import input_spec, output_specs
from hiresvit.export.deployed import Deployed
from hiresvit.export.onnx import export_onnx
from hiresvit.models.create import build_model, load_model_weights, model_spec
from hiresvit.models.fold import fold
from hiresvit.runtime.onnxruntime_runner import open_session
from hiresvit.runtime.picture_runner import LabelMap, PictureRunner
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import Feed

WINDOW, STRIDE, SIZE = 1024, 768, (1024, 2048)
STARTS = (0, 768, 1024)  # the last ends where the picture does


class Session(Runner):
    """The exported graph, without a file."""

    def __init__(self, graph: bytes, spec: Any) -> None:
        self.session = open_session(graph)
        self.inputs, self.outputs = (input_spec(spec),), output_specs(spec)
        self.about = About("ONNX Runtime", "", "CPU")

    def __call__(self, feeds: Feed) -> dict[str, NDArray[Any]]:
        return dict(zip(["logits"], self.session.run(["logits"], dict(feeds)), strict=True))

    def close(self) -> None:
        del self.session


def averaged(logits_of: Any, picture: NDArray[np.uint8], spec: Any) -> torch.Tensor:
    """The mean of the logits of all windows, (1, C, H, W)."""
    total, count = torch.zeros(1, spec.num_classes, *SIZE), torch.zeros(SIZE)
    whole = normalise(picture, spec.preprocess).transpose(2, 0, 1)[None]
    for left in STARTS:
        part = np.ascontiguousarray(whole[..., left : left + WINDOW])
        total[..., left : left + WINDOW] += logits_of(part)
        count[:, left : left + WINDOW] += 1
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    asked = parser.parse_args()
    spec = model_spec("hrvit_b1", "segment", (WINDOW, WINDOW))
    model = build_model(spec)
    load_model_weights(model, spec, asked.weights)
    network = Deployed(model, spec).eval()
    session = Session(export_onnx(fold(model), spec).SerializeToString(), spec)
    picture = sample_image(7, *SIZE)
    with torch.inference_mode():
        expected = averaged(lambda part: network(torch.from_numpy(part)), picture, spec)
        found = averaged(lambda part: torch.from_numpy(session({"image": part})["logits"]), picture, spec)
        apart = compare_arrays(expected.numpy(), found.numpy(), "segment")
        print(f"averaged logits: {apart.sqnr_db:.1f} dB, {100 * (apart.agreement or 0):.5f} % of the argmaxes equal")
        answer = PictureRunner(session, spec, stride=(STRIDE, STRIDE)).predict(picture)
        assert isinstance(answer, LabelMap)
        labels = F.interpolate(expected, size=SIZE, mode="bilinear", align_corners=False).argmax(1)[0].numpy()
    print(f"labels of the sliding window: {100 * np.mean(labels == answer.labels):.5f} % are PyTorch's")


if __name__ == "__main__":
    main()
