"""Exact and fast semantic inference of LRFormer+, side by side: how many labels are the same, and what each costs.

    python benchmarks/query_postprocess.py [--model NAME] [--weights FILE] [--imgsz H W] [--pictures DIR] [--images N]

The network runs once for each picture; both ways make labels of the same classes and masks, in FP32, at the size of
the network's input: "exact" resizes 100 masks and sums their sigmoids there, "fast" sums at stride 4 and resizes the
sums. ``near borders`` is the share of the pixels that differ with another label (exact's) next to them, up to 4 pixels
away. MACs are those of the sum over queries. Memory is that of the masks, of the sums, and of the sums resized to the
image, which ``fast`` has unless it is exported with --logits head; all in FP32.

Without --weights they are fresh, and agreement says nothing about trained ones: the script says so.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hiresvit.data.image import load_image
from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.data.source import find_files
from hiresvit.models.create import create_model, enliven
from hiresvit.models.layers import upsample
from hiresvit.models.mask2former import SemanticInference
from hiresvit.spec import MASK_STRIDE, QUERIES, ModelSpec

WAYS = ("exact", "fast")
NEAR = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lrformer_t_plus")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--imgsz", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--pictures", type=Path, help="default: drawn streets")
    parser.add_argument("--images", type=int, default=4)
    args = parser.parse_args()
    model = create_model(args.model, "masks", args.imgsz and tuple(args.imgsz), weights=args.weights)
    spec = model.spec
    assert isinstance(spec, ModelSpec)
    if args.weights is None:
        enliven(model, spec)
    if args.pictures:
        pictures = [load_image(path) for path in find_files([str(args.pictures)]).paths[: args.images]]
    else:
        pictures = sample_images(args.images, spec.imgsz)
    same, near, seen, seconds = [], [], set[int](), dict.fromkeys(WAYS, 0.0)
    for picture in pictures:
        image = torch.from_numpy(example_input(picture, spec.preprocess, spec.imgsz))
        with torch.inference_mode():
            classes, masks = model(image)
            exact, fast = (labelled(way, classes, masks, seconds) for way in WAYS)
        differing = exact != fast
        same.append(1 - differing.mean())
        near.append(at_border(exact)[differing].mean() if differing.any() else np.nan)
        seen |= set(np.unique(exact).tolist())
    print(
        f"{spec.name} at {spec.imgsz[0]}x{spec.imgsz[1]}, {len(pictures)} pictures, {len(seen)} classes in the labels"
    )
    print(f"equal labels: {100 * np.mean(same):.3f} %, worst {100 * min(same):.3f} %")
    borders = f"{100 * np.nanmean(near):.1f} %" if np.isfinite(near).any() else "none differs"
    print(f"of those that differ, near borders: {borders}")
    print("| postprocess | MMACs of the sum | masks, MB | sums, MB | resized sums, MB | ms a picture, PyTorch |")
    print("|---|---|---|---|---|---|")
    image_size = spec.imgsz[0] * spec.imgsz[1]
    for way in WAYS:
        pixels = image_size if way == "exact" else image_size // MASK_STRIDE**2
        held = [4e-6 * pixels * QUERIES, 4e-6 * pixels * spec.num_classes]
        held.append(4e-6 * image_size * spec.num_classes if way == "fast" else 0)
        cells = [f"{pixels * QUERIES * spec.num_classes / 1e6:.0f}", *(f"{size:.1f}" for size in held)]
        print(f"| {way} | {' | '.join(cells)} | {1000 * seconds[way] / len(pictures):.0f} |")
    if args.weights is None:
        print(
            "fresh weights: their masks are noise, so the agreement proves nothing about trained ones; give --weights"
        )


def labelled(way: str, classes: torch.Tensor, masks: torch.Tensor, seconds: dict[str, float]) -> NDArray[np.int64]:
    """Labels (H, W) of one picture's classes and masks; the time is added to ``seconds``, without that of argmax."""
    began = time.perf_counter()
    sums = SemanticInference(way)(classes, masks)
    if way == "fast":
        sums = upsample(sums, MASK_STRIDE, "bilinear")
    seconds[way] += time.perf_counter() - began
    found: NDArray[np.int64] = sums[0].argmax(0).numpy()
    return found


def at_border(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where another label is within `NEAR` pixels, across or down."""
    found = np.zeros(labels.shape, bool)
    for step in range(1, NEAR + 1):
        across, down = labels[:, step:] != labels[:, :-step], labels[step:] != labels[:-step]
        found[:, step:] |= across
        found[:, :-step] |= across
        found[step:] |= down
        found[:-step] |= down
    return found


if __name__ == "__main__":
    main()
