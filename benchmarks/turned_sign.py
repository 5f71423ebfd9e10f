"""What one turned sign costs: a fresh LRFormer+ in FP32 beside itself with the mask nearest to zero of the other sign.

    python benchmarks/turned_sign.py --sizes 128 512 --images 2

In each decoder layer in turn the one bit of 100 masks that a sum in another order would turn first is turned, and the
answers are compared: what `hiresvit.evaluation.parity` has to leave room for in a head of queries. Labels and their
agreement are those of ``--task segment``.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.evaluation.parity import Parity, compare_arrays
from hiresvit.models.create import create_model, enliven, model_spec
from hiresvit.models.mask2former import DECODER_LAYERS, Mask2FormerHead
from hiresvit.spec import QUERIES


class Turn:
    """A hook on `KeyMasks`: in its ``layer``-th call the bit of the mask nearest to zero is turned."""

    def __init__(self, layer: int) -> None:
        self.layer, self.calls, self.nearest = layer, 0, 0.0

    def __call__(self, keys: Any, inputs: tuple[Tensor, Tensor, int], hidden: Tensor) -> Tensor:
        self.calls += 1
        if self.calls != self.layer + 1:
            return hidden
        embedded, features, level = inputs
        masks = (embedded @ features.flatten(2)[:, None]).reshape(-1, QUERIES, *features.shape[2:])
        small = F.interpolate(masks, size=keys.sizes[level], mode="bilinear").flatten()
        place = int(small.abs().argmin())
        self.nearest = float(small[place].abs())
        turned = hidden.clone()
        turned.view(-1)[place] ^= True
        return turned


@torch.inference_mode()
def measure(model: Any, image: Tensor) -> list[tuple[float, Parity]]:
    """How near to zero the mask was, and what turning it does to the labels, of each layer."""
    head: Mask2FormerHead = model.decode_head
    maps = model.backbone(image)
    pieces = head.pixel_decoder(maps)
    head.pixel_decoder.forward = lambda _: pieces  # type: ignore[method-assign, assignment]  # the same for all layers
    reference = head(maps)
    found = []
    for layer in range(DECODER_LAYERS):
        turn = Turn(layer)
        handle = head.key_masks.register_forward_hook(turn)
        found.append((turn, compare_arrays(reference.numpy(), head(maps).numpy(), "segment")))
        handle.remove()
    del head.pixel_decoder.forward
    return [(turn.nearest, parity) for turn, parity in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lrformer_t_plus")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128])
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    for side in options.sizes:
        spec = model_spec(options.model, "segment", (side, side))
        model = create_model(options.model, "segment", (side, side))
        enliven(model, spec)
        for number, picture in enumerate(sample_images(options.images, spec.imgsz)):
            image = torch.from_numpy(example_input(picture, spec.preprocess, spec.imgsz))
            for layer, (nearest, parity) in enumerate(measure(model, image)):
                print(
                    f"{side}x{side} picture {number} layer {layer}: {nearest:.1e} from zero,"
                    f" {parity.sqnr_db:.1f} dB, agreement {parity.agreement:.4%}, cosine {parity.cosine:.7f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
