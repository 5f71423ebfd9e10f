"""The authors' transforms against ours, on real photos that Python packages ship: largest difference of the input.

It needs the authors' libraries, which no environment of ours has. In one with ``pip install`` of `PACKAGES`, from the
root of the repository:

    PYTHONPATH=. python benchmarks/preprocess_parity.py

Every side decodes the file itself. The last column is what was done until commit 2ff97fe: a stretch by Pillow, or a
crop with crop_pct 0.875 whose long side is floored.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.image import load_image
from hiresvit.data.preprocess import preprocess
from hiresvit.models.zoo import find_model
from hiresvit.spec import PreprocessSpec, Task

PACKAGES = "timm torchvision mmcv-lite paddleclas paddlepaddle scikit-image scikit-learn matplotlib ultralytics"
PHOTOS = {
    "skimage": "data/astronaut.png data/chelsea.png data/coffee.png data/rocket.jpg data/retina.jpg "
    "data/motorcycle_left.png data/hubble_deep_field.jpg",
    "sklearn": "datasets/images/china.jpg datasets/images/flower.jpg",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
    "ultralytics": "assets/bus.jpg assets/zidane.jpg",
}
CUT = {"tiny": (37, 23), "strip": (9, 400), "square": (224, 224)}  # from the last photo, from its upper left corner
OLD: dict[Task, PreprocessSpec] = {"classify": PreprocessSpec("crop", "bicubic"), "segment": PreprocessSpec()}
LIMIT = 1e-6  # x / 255 - mean and x - 255 mean round otherwise, by 7e-7; one grey level is 2e-2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Input = NDArray[np.float32]
Size = tuple[int, int]
Transform = Callable[[Path, Size], Input | None]


def photos(folder: Path) -> list[Path]:
    """Twelve photos of the packages, three cuts of one, and one of 23 megapixels put together from it."""
    found = [
        Path(str(importlib.import_module(package).__file__)).parent / name if package != "ultralytics" else file(name)
        for package, names in PHOTOS.items()
        for name in names.split()
    ]
    last = np.asarray(Image.open(found[-1]))
    made = {name: last[:height, :width] for name, (height, width) in CUT.items()} | {"tiled": np.tile(last, (5, 5, 1))}
    for name, picture in made.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return [*found, *(folder / f"{name}.png" for name in made)]


def file(name: str) -> Path:
    """A file of ultralytics, which is large to import."""
    return Path(str(importlib.metadata.distribution("ultralytics").locate_file(f"ultralytics/{name}")))


def hrvit_classify(path: Path, imgsz: Size) -> Input:
    """timm's transform for evaluation, with the configuration of HRViT's models/hrvit.py."""
    from timm.data import create_transform

    transform = create_transform(imgsz[0], interpolation="bicubic", crop_pct=0.9, mean=MEAN, std=STD)
    return np.asarray(transform(Image.open(path).convert("RGB")).numpy()[None], np.float32)


def by_torchvision(scale: float) -> Transform:
    """DeiT's transform for evaluation: int(scale * size), bicubic, the centre."""
    from torchvision import transforms

    def transform(path: Path, imgsz: Size) -> Input:
        chain = transforms.Compose(
            [
                transforms.Resize(int(scale * imgsz[0]), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(imgsz[0]),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        return np.asarray(chain(Image.open(path).convert("RGB")).numpy()[None], np.float32)

    return transform


def mixformer_classify(path: Path, imgsz: Size) -> Input:
    """PaddleClas's operators, with the values of mixformer_b1.yaml."""
    import cv2
    from paddleclas.deploy.python.preprocess import CropImage, NormalizeImage, ResizeImage

    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), 1)[:, :, ::-1]
    image = ResizeImage(resize_short=256, interpolation="bicubic", backend="pil")(np.ascontiguousarray(image))
    image = CropImage(size=imgsz[0])(image)
    normal = NormalizeImage(scale="1.0/255.0", mean=list(MEAN), std=list(STD), order="")(image)
    return np.asarray(normal.transpose(2, 0, 1)[None], np.float32)


def by_mmcv(align: int) -> Transform:
    """mmcv's Resize, Normalize and Pad; with ``align`` LRFormer's AlignResize, whose two calls of mmcv these are."""
    import mmcv
    from mmcv.transforms import Normalize, Pad, Resize

    def transform(path: Path, imgsz: Size) -> Input | None:
        image = mmcv.imread(str(path))
        if (imgsz[0] - imgsz[1]) * (image.shape[0] - image.shape[1]) < 0:
            return None  # mmcv turns the limits with the photo, and a network's input does not turn
        resize = Resize(scale=imgsz[::-1], keep_ratio=True)
        found: dict[str, Any] = resize({"img": image, "img_shape": image.shape[:2]})
        if align > 1:
            sides = (-(-side // align) * align for side in found["img"].shape[1::-1])
            found["img"] = mmcv.imresize(found["img"], tuple(sides))
        mean, std = ([255 * value for value in values] for values in (MEAN, STD))
        found = Pad(size=imgsz[::-1], pad_val=0)(Normalize(mean=mean, std=std, to_rgb=True)(found))
        return np.asarray(found["img"].transpose(2, 0, 1)[None], np.float32)

    return transform


def rows() -> list[tuple[str, Task, Size, Transform, str]]:
    """Model, task, size, what the authors do, and with what."""
    dense, aligned = by_mmcv(1), by_mmcv(32)
    return [
        ("hrvit_b1", "classify", (224, 224), hrvit_classify, "timm"),
        ("lrformer_t", "classify", (224, 224), by_torchvision(256 / 224), "torchvision"),
        ("mixformer_b1", "classify", (224, 224), mixformer_classify, "PaddleClas"),
        ("hiri_vit_s", "classify", (448, 448), by_torchvision(1 / 0.96), "torchvision"),
        ("hrvit_b1", "segment", (512, 512), dense, "mmcv"),
        ("hrvit_b1", "segment", (1024, 2048), dense, "mmcv"),
        ("lrformer_t", "segment", (512, 512), aligned, "mmcv, twice"),
        ("lrformer_t", "segment", (512, 1024), aligned, "mmcv, twice"),
        ("mixformer_b1", "segment", (512, 512), dense, "mmcv"),
        ("hiri_vit_s", "segment", (512, 512), dense, "mmcv"),
    ]


def measured(row: tuple[str, Task, Size, Transform, str], paths: list[Path]) -> dict[str, tuple[float, float]]:
    """Largest difference of each photo's input, ours now and ours then; photos that the authors cannot fit are out."""
    model, task, imgsz, transform, _ = row
    found = {}
    for path in paths:
        if (wanted := transform(path, imgsz)) is not None:
            image = load_image(path)
            specs = find_model(model).preprocess[task], OLD[task]
            inputs = [preprocess(image, spec, imgsz) for spec in specs]
            now, then = (float(np.abs(ours - wanted).max()) for ours in inputs)
            found[path.stem] = now, then
    return found


def main() -> int:
    """Print the table; 1 if an input differs by more than `LIMIT`."""
    names = ("timm", "torchvision", "mmcv-lite", "paddleclas", "opencv-python", "pillow", "numpy")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
    print("| model | task | size | authors | photos | differs by | over 1e-6 | differed by |")
    print("|---|---|---|---|--:|--:|--:|--:|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        paths = photos(Path(folder))
        for row in rows():
            model, task, (height, width), _, by = row
            found = measured(row, paths)
            now, then = zip(*found.values(), strict=True)
            over = [name for name, (value, _) in found.items() if value > LIMIT]
            failed |= bool(over)
            print(
                f"| {model} | {task} | {height}x{width} | {by} | {len(now)} | {max(now):.1e} |"
                f" {' '.join(over) or 'none'} | {min(then):.2f} to {max(then):.2f} |"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
