"""Draw examples/street.jpg, which the README and the tests use: ``python examples/make_photo.py``."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from hiresvit.data.scenes import sample_image
from hiresvit.files import atomic_path

SEED, HEIGHT, WIDTH = 1, 720, 1280


def main() -> None:
    """Write the picture beside this file."""
    target = Path(__file__).with_name("street.jpg")
    with atomic_path(target) as temporary:
        Image.fromarray(sample_image(SEED, HEIGHT, WIDTH)).save(temporary, quality=88, optimize=True)
    print(f"{target}: {WIDTH}x{HEIGHT}, {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
