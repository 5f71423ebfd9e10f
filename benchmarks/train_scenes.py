"""Train a segmentor on drawn, labelled streets (hiresvit.data.scenes.Scenes), on a CPU or on a GPU.

    python benchmarks/train_scenes.py --model hrvit_nano --stages 160:2000,256:500 -o hrvit_nano.safetensors

Stages are SIDE:STEPS: square cuts of that side out of scenes of `--size`, at random places, mirrored or not. AdamW with
a cosine schedule over all stages. The scenes are those of the seeds 0 to `--scenes`; progress is measured on 50 others,
and neither are those that `hiresvit eval --dataset scenes` measures on. What is written: the weights in float16,
and OUT.json with the recipe and the log. Progress is kept in OUT.progress, from where the same command goes on.

The model in examples/ is the first line's, with the other arguments as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hiresvit.data.scenes import sample_scene
from hiresvit.files import atomic_path
from hiresvit.models.create import build_model, model_spec
from hiresvit.models.weights.file import save_safetensors

VALIDATION = 900_000  # the seed of the first scene that progress is measured on
VALIDATED = 50
SAVE_EVERY = 250  # steps

Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass
class Training:
    """One run: its arguments, its scenes, and how far it is."""

    args: argparse.Namespace
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    weights: Tensor  # of the classes
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    images, labels = draw(range(args.scenes), args.size)
    training = Training(args, images, labels, class_weights(labels).to(args.device))
    progress = progress_of(args)
    state: dict[str, Any] = {}
    if progress.exists():
        saved = torch.load(progress, weights_only=True)
        state, training.step, training.log = saved["model"], saved["step"], saved["log"]
    ended = 0
    for side, steps in args.stages:
        ended += steps
        if training.step < ended:
            state = train_stage(training, side, ended, state)
    spec = model_spec(args.model, "segment", args.size)
    model = build_model(spec)
    model.load_state_dict(state)
    log = [*training.log, {"step": training.step, "val_miou": validate(model, args)}]
    facts = {
        "hiresvit.model": spec.name,
        "hiresvit.task": spec.task,
        "hiresvit.source": "benchmarks/train_scenes.py",
    }
    save_safetensors(model.half(), args.output, facts)
    recipe = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    tools = {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}
    with atomic_path(Path(f"{args.output}.json")) as temporary:
        temporary.write_text(json.dumps({"recipe": recipe, "tools": tools, "log": log}, indent=1) + "\n")
    progress.unlink(missing_ok=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hrvit_nano")
    parser.add_argument("--size", type=int, default=256, help="side of the scenes")
    parser.add_argument("--stages", type=stages, default="160:2000,256:500")
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.safetensors")
    return parser.parse_args()


def progress_of(args: argparse.Namespace) -> Path:
    return Path(f"{args.output}.progress")


def stages(text: str) -> list[tuple[int, int]]:
    """``160:2000,256:500`` as pairs of numbers."""
    pairs = [part.split(":") for part in text.split(",")]
    return [(int(side), int(steps)) for side, steps in pairs]


def draw(seeds: range, size: int) -> Batch:
    """Images (N, H, W, 3) and labels (N, H, W) of the scenes."""
    with multiprocessing.Pool() as pool:
        samples = pool.map(partial(sample_scene, height=size, width=size), seeds, chunksize=16)
    return np.stack([s.image for s in samples]), np.stack([np.asarray(s.labels) for s in samples])


def class_weights(labels: NDArray[np.uint8]) -> Tensor:
    """Rare classes count more: the fourth root of how much rarer they are, with mean 1 over the pixels."""
    shares = np.bincount(labels.ravel(), minlength=256)[:19] / labels.size
    weights = np.where(shares > 0, np.maximum(shares, 1e-6) ** -0.25, 0)
    return torch.tensor(weights / (weights * shares).sum(), dtype=torch.float32)


def train_stage(training: Training, side: int, ended: int, state: dict[str, Any]) -> dict[str, Any]:
    """Train on cuts of one side until step ``ended``; returns the weights, which fit every size."""
    args = training.args
    total = sum(steps for _, steps in args.stages)
    model = build_model(model_spec(args.model, "segment", side), seed=args.seed).to(args.device)
    if state:
        model.load_state_dict(state)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=args.lr)
    while training.step < ended:
        rate = args.lr * schedule(training.step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Seeded by the step, so that a run that was interrupted goes on as if it had not been.
        rng = np.random.default_rng((args.seed, training.step))
        image, target = cut(rng, training, side)
        logits = model(image.to(args.device))
        full = F.interpolate(logits, size=(side, side), mode="bilinear")
        loss = F.cross_entropy(full, target.to(args.device), weight=training.weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        training.step += 1
        if training.step % 50 == 0:
            training.log.append({"step": training.step, "side": side, "lr": rate, "loss": loss.item()})
            print(f"{time.strftime('%H:%M:%S')} {training.log[-1]}", flush=True)
        if training.step % SAVE_EVERY == 0:
            saved = {"model": model.state_dict(), "step": training.step, "log": training.log}
            with atomic_path(progress_of(args)) as temporary:
                torch.save(saved, temporary)
    return {name: value.cpu() for name, value in model.state_dict().items()}


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]


def schedule(step: int, total: int) -> float:
    """Half a cosine after a warm-up of 100 steps."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / total))


def cut(rng: np.random.Generator, training: Training, side: int) -> tuple[Tensor, Tensor]:
    """A batch of cuts: normalised images (B, 3, side, side) and labels (B, side, side)."""
    images, labels = [], []
    for index in rng.integers(len(training.images), size=training.args.batch):
        top, left = rng.integers(training.args.size - side + 1, size=2)
        window = (slice(top, top + side), slice(left, left + side))
        image, label = training.images[index][window], training.labels[index][window]
        mirror = slice(None, None, -1 if rng.random() < 0.5 else 1)
        images.append(image[:, mirror])
        labels.append(label[:, mirror])
    return normalised(np.stack(images), training.args), torch.from_numpy(np.stack(labels)).long()


def normalised(images: NDArray[np.uint8], args: argparse.Namespace) -> Tensor:
    """As `hiresvit.data.preprocess` does to an image that has the network's size: (B, H, W, 3) -> (B, 3, H, W)."""
    spec = model_spec(args.model, "segment", args.size).preprocess
    x = images.astype(np.float32) / np.float32(255)
    x = (x - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def validate(model: nn.Module, args: argparse.Namespace) -> float:
    """mIoU in per cent on scenes that were not trained on, over the classes that are in them."""
    images, labels = draw(range(VALIDATION, VALIDATION + VALIDATED), args.size)
    matrix = np.zeros((19, 19), np.int64)
    for image, label in zip(images, labels, strict=True):
        with torch.inference_mode():
            logits = model(normalised(image[None], args))
            best = F.interpolate(logits, size=label.shape, mode="bilinear").argmax(1)[0].numpy()
        matrix += np.bincount(19 * label.astype(int).ravel() + best.ravel(), minlength=361).reshape(19, 19)
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    there = matrix.sum(1) > 0
    return float(100 * (matrix.diagonal()[there] / union[there]).mean())


if __name__ == "__main__":
    main()
