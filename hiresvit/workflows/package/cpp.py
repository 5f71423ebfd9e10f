"""A C++ program of the bundle's own: main.cpp against ``hiresvit.hpp``, found by CMake's ``find_package(hiresvit)``."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from hiresvit.bundle.manifest import MANIFEST
from hiresvit.errors import UsageError
from hiresvit.spec import is_raw
from hiresvit.version import __version__
from hiresvit.workflows.package.shipped import Shipped, fill

BUNDLE = "bundle"
_CAMERAS = {
    "rgb": "hiresvit::rgb(pixels, height, width, stride)",
    "bgr": "hiresvit::bgr(pixels, height, width, stride)",
    "rgba": "hiresvit::packed(HIRESVIT_RGBA, pixels, height, width, stride)",
    "bgra": "hiresvit::packed(HIRESVIT_BGRA, pixels, height, width, stride)",
    "nv12": "hiresvit::nv12(luma, chroma, height, width, {yuv}, luma_stride, chroma_stride)",
}


def write_cpp(shipped: Shipped, folder: Path) -> list[str]:
    """Fill a folder with the bundle, a program that answers with it, and its CMakeLists.txt.

    The program reads PPM, which needs no library; an app has a camera's memory in that place. Raises UsageError for a
    bundle that has nothing to label.
    """
    spec, contract = shipped.spec, shipped.contract
    if is_raw(spec.task):
        raise UsageError(
            f"{shipped.bundle.folder}: task {spec.task} has nothing to label; --format triton serves its tensors"
        )
    role = "" if shipped.role is None else shipped.pick()
    (folder / BUNDLE).mkdir()
    for entry in shipped.bundle.manifest.files:
        shipped.copy(entry.role, folder / BUNDLE / entry.name)
    (folder / BUNDLE / MANIFEST).write_bytes((shipped.bundle.folder / MANIFEST).read_bytes())
    pictures = [entry for entry in shipped.bundle.manifest.files if entry.role == "picture"]
    for _ in pictures:
        with Image.open(shipped.bundle.path("picture")) as picture:
            picture.convert("RGB").save(folder / "golden.ppm")
    yuv = "HIRESVIT_" + re.sub(r"\W", "_", (contract.yuv or "bt709").upper())
    camera = _CAMERAS[contract.pixels].format(yuv=yuv)
    segments = spec.task == "segment"
    main = fill(f"main_{spec.task}.cpp", graph=role, camera=camera)
    (folder / "main.cpp").write_text(main, encoding="utf-8")
    (folder / "CMakeLists.txt").write_text(fill("app.cmake", version=__version__), encoding="utf-8")
    text = fill(
        "cpp.md",
        slug=spec.slug,
        picture="golden.ppm" if pictures else "PICTURE.ppm",
        output=" labels.pgm" if segments else "",
        writes="`labels.pgm`, a class a pixel" if segments else "the best classes",
        camera=camera,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return []
