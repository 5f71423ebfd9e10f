"""What the authors' libraries make of drawn pictures: writes preprocess.json beside this file.

    PYTHONPATH=.:benchmarks python tests/golden/preprocess_golden.py

in an environment with the packages that benchmarks/preprocess_parity.py names. No line of hiresvit makes a number here;
`picture` and `digest` (numpy only) are imported by the tests.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("preprocess.json")
SIZES = [(300, 451), (427, 640), (600, 512), (37, 23), (9, 400), (720, 405), (343, 256), (224, 224), (512, 512)]
RESAMPLED = [
    ((300, 451), (512, 770)), ((256, 512), (128, 256)), ((257, 513), (128, 256)), ((1, 1), (5, 7)), ((2, 3), (1, 1)),
    ((7, 1), (20, 3)), ((1, 9), (4, 4)), ((200, 300), (200, 150)), ((200, 300), (100, 300)), ((100, 150), (200, 300)),
    ((121, 77), (120, 78)), ((640, 427), (97, 31)), ((33, 64), (99, 192)), ((1080, 810), (512, 384)),
]


def picture(height, width):
    """A uint8 (H, W, 3) picture: slopes with hard, noisy detail; whole numbers only, so the same everywhere."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = (x * 73856093 ^ y * 19349663 ^ c * 83492791) % 1009 % 97
    blocks = ((x // 11 + y // 7 + c) % 3) * 50
    return (((x + 2 * y) * (c + 1) // 5 + noise + blocks) % 256).astype(np.uint8)


def digest(image):
    return hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def levels(values):
    """An input (1, 3, H, W) as grey levels again, uint8 (H, W, 3); filling is 124, 116, 104."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return np.rint((values[0].transpose(1, 2, 0).astype(np.float64) * std + mean) * 255).astype(np.uint8)


def main():
    import importlib.metadata
    import tempfile

    import cv2
    import preprocess_parity
    from PIL import Image

    inputs = []
    with tempfile.TemporaryDirectory() as folder:
        for model, task, imgsz, transform, by in preprocess_parity.rows():
            for size in SIZES if imgsz != (1024, 2048) else []:
                path = Path(folder) / "picture.png"
                Image.fromarray(picture(*size)).save(path)
                values = transform(path, imgsz)
                if values is not None:
                    sample = [round(float(v), 6) for v in values.ravel()[:: values.size // 5]]
                    inputs.append([model, task, imgsz, size, by, digest(levels(values)), sample])
    resampled = [
        [source, target, digest(cv2.resize(picture(*source), target[::-1]).reshape(*target, 3))]
        for source, target in RESAMPLED
    ]
    versions = {
        name: importlib.metadata.version(name)
        for name in ("timm", "torchvision", "mmcv-lite", "paddleclas", "opencv-python", "pillow", "numpy")
    }
    lines = [f'"versions": {json.dumps(versions)}']
    for name, rows in (("inputs", inputs), ("resampled", resampled)):
        lines.append(f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
