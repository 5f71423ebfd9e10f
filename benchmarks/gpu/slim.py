"""A bundle of which only the FP16 plan and what proves it are left, to be carried to a GPU: slim.py BUNDLE FOLDER."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from hiresvit.bundle.manifest import read_manifest, write_manifest

KEPT = ("golden", "picture", "plan", "plan_info")


def main(bundle: Path, folder: Path) -> None:
    manifest = read_manifest(bundle / "manifest.json")
    above = {entry.role: entry for entry in manifest.files}
    kept = [above[role] for role in KEPT if role in above]
    names = {entry.name for entry in kept}
    files = tuple(
        entry if entry.parent in names else replace(entry, parent=None, parent_sha256=manifest.weights.sha256)
        for entry in kept
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in files:
        shutil.copyfile(bundle / entry.name, folder / entry.name)
    write_manifest(folder, replace(manifest, files=files, notes=(*manifest.notes, "slimmed for a GPU check")))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
