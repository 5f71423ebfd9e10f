"""A C++ program of the bundle's own: main.cpp against ``hiresvit.hpp``, found by CMake's ``find_package(hiresvit)``."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from hiresvit.bundle.manifest import MANIFEST
from hiresvit.version import __version__
from hiresvit.workflows.package.shipped import Shipped, fill

BUNDLE = "bundle"
_WRITES = {"segment": "`labels.pgm`, a class a pixel", "classify": "the best classes", "detect": "the boxes"}
_PRINTS = {
    "classify": """\
    for (const hiresvit::Class& one : engine.classify(given)) {
      std::cout << 100.0 * static_cast<double>(one.probability) << "%  class " << one.index << "\\n";
    }""",
    "detect": """\
    for (const hiresvit::Detection& one : engine.detect(given)) {
      std::cout << 100.0 * static_cast<double>(one.score) << "%  class " << one.label << " at";
      for (const float side : one.box) std::cout << " " << side;  // left, top, right, bottom
      std::cout << "\\n";
    }""",
}
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
    bundle that has no answer to print.
    """
    spec, contract = shipped.spec, shipped.contract
    shipped.require_answer()
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
    if spec.task == "segment":
        main = fill("main_segment.cpp", graph=role, camera=camera)
    else:
        main = fill("main_list.cpp", graph=role, camera=camera, what=_WRITES[spec.task][4:], lines=_PRINTS[spec.task])
    (folder / "main.cpp").write_text(main, encoding="utf-8")
    (folder / "CMakeLists.txt").write_text(fill("app.cmake", version=__version__), encoding="utf-8")
    text = fill(
        "cpp.md",
        slug=spec.slug,
        picture="golden.ppm" if pictures else "PICTURE.ppm",
        output=" labels.pgm" if spec.task == "segment" else "",
        writes=_WRITES[spec.task],
        camera=camera,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return []
