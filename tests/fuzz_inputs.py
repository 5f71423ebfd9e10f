"""The inputs of benchmarks/fuzz.py: real small files, and what is made of them, with a command for each."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from mutations import mutate_bytes, mutate_json, mutate_message, sealed

from hiresvit.spec import ContractSpec

ROOT = Path(__file__).parents[1]
CANARY = "executed"  # what a planted pickle leaves in the working folder
GRAPHS = ("simplified.onnx", "cpu.onnx", "fp16.onnx", "int8.onnx")


def prepare() -> None:
    """In a worker: import what takes long, and make hrvit_b1 a tiny one."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import onnx  # noqa: F401
    import torch
    from tiny import build_tiny

    from hiresvit.models.zoo import MODELS

    torch.set_num_threads(1)
    MODELS["hrvit_b1"] = replace(MODELS["hrvit_b1"], build=build_tiny)


class Planted:
    """Unpickled, it would leave a file."""

    def __init__(self, how: int) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        code = f"open({CANARY!r}, 'w').close()"
        calls: tuple[tuple[Any, ...], ...] = (
            (os.system, (f"touch {CANARY}",)),
            (exec, (code,)),
            (eval, (code,)),
            (open, (CANARY, "w")),
            (getattr(Path(CANARY), "touch"), ()),  # noqa: B009 (a bound method is pickled by getattr)
        )
        return calls[self.how % len(calls)]


class Seeds:
    """Real files, made or unpacked once: a bundle, pictures, checkpoints, graphs, and what means harm."""

    def __init__(self, folder: Path) -> None:
        with tarfile.open(ROOT / "tests/golden/bundle_schema4.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        self.bundle = folder / "schema4"
        self.manifest: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_text())
        self.pictures = _pictures(folder)
        self.checkpoints = _checkpoints(folder)
        for module, kind in (("models.hostile_checkpoints", "checkpoints"), ("data.hostile_pictures", "pictures")):
            getattr(self, kind).extend(_written_by(module, folder / kind))
        self.graphs = [self.bundle / name for name in GRAPHS]
        write_all = importlib.import_module("graph.hostile_graphs").write_all

        self.few = folder / "few"
        self.few.mkdir()
        for number in range(3):
            os.link(self.pictures[0], self.few / f"{number}.png")
        self.table = _table(self)
        (folder / "graphs").mkdir()
        self.hostile_graphs = write_all(folder / "graphs")


def _table(seeds: Seeds) -> str:
    """The table of these pictures and no others, so that a changed one is not merely stale."""
    from hiresvit.workflows.calibrate import quantize_file
    from hiresvit.workflows.quantize import Int8Settings

    settings = Int8Settings(str(seeds.few), images=2, threads=1)
    target = seeds.few.parent / "seed.onnx"
    return quantize_file(seeds.bundle / "simplified.onnx", target, settings).paths[1].read_text()


def _written_by(module: str, folder: Path) -> list[Path]:
    """What another generator writes, where it is."""
    try:
        write_all: Callable[[Path], list[Path]] = importlib.import_module(module).write_all
    except ModuleNotFoundError:
        return []
    folder.mkdir()
    return [path for path in write_all(folder) if path.is_file()]  # no pipes, folders or links in a circle


def _pictures(folder: Path) -> list[Path]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8))
    made = {mode: picture.convert(mode) for mode in ("RGB", "P", "1", "L", "LA", "RGBA", "CMYK", "YCbCr", "F")}
    made["I"] = made["L"].convert("I")
    made["I16"] = Image.fromarray(rng.integers(0, 2**16, (40, 48), np.uint16))
    made |= {"pixel": picture.crop((0, 0, 1, 1)), "row": picture.crop((0, 0, 48, 1))}
    paths = []
    for mode, suffixes in (
        ("RGB", ("png", "jpg", "webp", "bmp", "tif", "gif", "ppm")),
        ("P", ("png", "gif")),
        ("I", ("tif",)),
        ("1", ("png", "tif", "pbm")),
        ("L", ("png", "jpg", "pgm")),
        ("LA", ("png",)),
        ("RGBA", ("png", "webp", "tif")),
        ("CMYK", ("jpg", "tif")),
        ("YCbCr", ("jpg", "tif")),
        ("F", ("tif",)),
        ("I16", ("png", "tif")),
        ("pixel", ("png", "jpg")),
        ("row", ("png",)),
    ):
        for suffix in suffixes:
            paths.append(folder / f"{mode}.{suffix}")
            made[mode].save(paths[-1])
    return paths


def _checkpoints(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    prepare()
    from hiresvit.models.create import create_model

    state = create_model("hrvit_b1", task="classify", num_classes=3, imgsz=(64, 64)).state_dict()
    few = dict(list(state.items())[:20])
    arrays = {key: value.numpy() for key, value in few.items()}
    paths = [folder / name for name in ("a.pth", "old.pth", "a.safetensors", "a.pdparams", "few.pth", "raw.pkl")]
    torch.save(state, paths[0])
    torch.save(few, paths[1], _use_new_zipfile_serialization=False)
    save_file(few, paths[2])
    paths[3].write_bytes(pickle.dumps(arrays, 2))
    torch.save({"state_dict": few, "epoch": 3, "meta": {"args": [1, 2]}}, paths[4])
    paths[5].write_bytes(pickle.dumps(few))
    for how in range(5):
        paths.append(folder / f"planted{how}.pth")
        torch.save({**few, "extra": Planted(how)}, paths[-1])
        paths.append(folder / f"planted{how}.pdparams")
        paths[-1].write_bytes(pickle.dumps({**arrays, "extra": Planted(how)}, 2))
    return paths


def _copy(seeds: Seeds, folder: Path) -> Path:
    """The bundle, its files linked: a case that changes one writes it anew."""
    bundle = folder / "bundle"
    shutil.copytree(seeds.bundle, bundle, copy_function=os.link)
    return bundle


def _rewrite(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _source_command(seeds: Seeds, source: str, rng: random.Random) -> list[str]:
    picture = str(seeds.pictures[0])
    return rng.choice(
        [
            ["inspect", source],
            ["inspect", source],
            ["inspect", source, "--json"],
            ["run", source, picture, "-o", "out.png", "--threads", "1"],
            ["bench", source, "--min-s", "0", "--threads", "1"],
            ["compare", source, source, "--images", "1", "--threads", "1"],
        ]
    )


def manifests(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    bundle = _copy(seeds, folder)
    values = dict(seeds.manifest)
    if rng.random() < 0.7:
        values |= {
            "schema_version": 7,
            "contract": asdict(ContractSpec()),
            "htp": {},
            "labels": rng.choice((None, {"names": ["a", "b"], "colours": [[0, 0, 0]] * 2, "source": "checkpoint"})),
        }
    text = mutate_json(values, rng, rng.choice((1, 1, 1, 2, 5)))
    _rewrite(bundle / "manifest.json", sealed(text))
    return _source_command(seeds, "bundle", rng)


def golden_pairs(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    """With the right sums: the zip's own directory, its members and their headers are what is wrong."""
    import hashlib

    bundle = _copy(seeds, folder)
    path = bundle / "golden.npz"
    if rng.random() < 0.5:
        data = mutate_bytes(path.read_bytes(), rng)
    else:
        made = BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", rng.choice((0, 8, 12, 14))) as new:
            for info in old.infolist():
                part = old.read(info)
                start = mutate_bytes(part[:128], rng) if rng.random() < 0.7 else part[:128]
                new.writestr(info.filename, start + part[128:] + bytes(rng.choice((0, 2**24))))
        data = made.getvalue()
    _rewrite(path, data)
    values = json.loads(json.dumps(seeds.manifest))
    for entry in values["files"]:
        if entry["role"] == "golden":
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _rewrite(bundle / "manifest.json", sealed(json.dumps(values)))
    return ["run", "bundle", str(seeds.pictures[0]), "-o", "out.png", "--threads", "1"]


def _graph_command(seeds: Seeds, source: str, rng: random.Random) -> list[str]:
    few = _few(seeds, Path(source).parent)
    return rng.choice(
        [
            _source_command(seeds, source, rng),
            ["check", source, "--no-build"],
            ["check", source, "--no-build", "--json"],
            ["calibrate", source, "--calib", few, "--calib-images", "2", "--threads", "1"],
        ]
    )


def _few(seeds: Seeds, folder: Path) -> str:
    target = folder / "few"
    target.mkdir()
    for number in range(3):
        os.link(seeds.pictures[0], target / f"{number}.png")
    return str(target)


def graphs(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    import onnx

    path = rng.choice(seeds.graphs if rng.random() < 0.7 else seeds.hostile_graphs)
    data = path.read_bytes()
    if rng.random() < 0.6 and (model := _parsed(onnx.ModelProto(), data)) is not None:
        data = mutate_message(model, rng, rng.choice((1, 1, 2, 4)))
    elif rng.random() < 0.95:
        data = mutate_bytes(data, rng)
    target = folder / "graph.onnx"
    target.write_bytes(data)
    (folder / "w.bin").write_bytes(bytes(768))
    return _graph_command(seeds, str(target), rng)


def _parsed(model: Any, data: bytes) -> Any:
    try:
        model.ParseFromString(data)
        for prop in model.metadata_props:
            str(prop.value)
        str(model.graph.name)
        list(model.graph.ListFields())
    except Exception:  # what is no graph any more can only have its bytes changed
        return None
    return model


def stamps(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    """A good graph that says other things of itself."""
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(rng.choice(seeds.graphs[:2]).read_bytes())
    for prop in model.metadata_props:
        if prop.key == "hiresvit.spec":
            text = mutate_json(json.loads(prop.value), rng, rng.choice((1, 1, 2)))
            prop.value = text.encode("utf-8", "replace").decode()
        elif rng.random() < 0.1:
            prop.value = rng.choice(("fp32", "../x", "a\x1b[31m", ""))
    target = folder / "graph.onnx"
    target.write_bytes(model.SerializeToString())
    return _graph_command(seeds, str(target), rng)


def sidecars(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    plan = folder / "a.plan"
    os.link(seeds.bundle / "fp16.plan", plan)
    values = json.loads((seeds.bundle / "fp16.plan.json").read_text())
    if rng.random() < 0.2:
        values["report"]["plan_bytes"] = plan.stat().st_size
        _rewrite(plan, mutate_bytes((seeds.bundle / "fp16.plan").read_bytes()[:3000], rng))
    (folder / "a.plan.json").write_bytes(mutate_json(values, rng, rng.choice((1, 1, 3))).encode("utf-8", "replace"))
    picture = str(seeds.pictures[0])
    return rng.choice(
        [["inspect", "a.plan"], ["inspect", "a.plan", "--json"], ["run", "a.plan", picture, "-o", "o.png"]]
    )


def tables(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    text = mutate_json(json.loads(seeds.table), rng, rng.choice((1, 1, 2)))
    (folder / "table.json").write_bytes(text.encode("utf-8", "replace"))
    source = ["calibrate", str(seeds.bundle / "simplified.onnx"), "--calib", str(seeds.few), "--calib-images", "2"]
    return [*source, "--calib-table", "table.json", "--threads", "1", "-o", "q.onnx"]


def lists(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    few = _few(seeds, folder)
    lines = [f"{few}/{number}.png" for number in range(3)] + [
        "/dev/zero",
        "..",
        "",
        "\x1b[31m.png",
        "\u202egnp",
        "a\tb",
    ]
    text = "\n".join(rng.choice(lines) for _ in range(rng.randint(0, 6)))
    (folder / "list.txt").write_bytes(mutate_bytes(text.encode(), rng) if rng.random() < 0.7 else text.encode())
    graph = str(seeds.bundle / "simplified.onnx")
    return ["calibrate", graph, "--calib", "list.txt", "--calib-images", "2", "--threads", "1", "-o", "q.onnx"]


def checkpoints(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    path = rng.choice(seeds.checkpoints)
    target = folder / path.name
    data = path.read_bytes()
    if path.suffix == ".pth" and data[:2] == b"PK" and rng.random() < 0.5:
        data = _zipped_again(path, rng) or mutate_bytes(data, rng)
    elif rng.random() < 0.9:
        data = mutate_bytes(data, rng)
    target.write_bytes(data)
    return ["convert", path.name, "out.safetensors", "--model", "hrvit_b1", "--task", "classify", "--num-classes", "3"]


def _zipped_again(path: Path, rng: random.Random) -> bytes | None:
    """A checkpoint whose pickle alone was changed; None for one that means harm as a zip."""
    made = BytesIO()
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", rng.choice((0, 0, 8))) as new:
            if sum(info.file_size for info in old.infolist()) > path.stat().st_size:
                return None
            for info in old.infolist():
                part = old.read(info)
                new.writestr(info.filename, mutate_bytes(part, rng) if info.filename.endswith(".pkl") else part)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, UnicodeDecodeError, ValueError):
        return None
    return made.getvalue()


def pictures(seeds: Seeds, folder: Path, rng: random.Random) -> list[str]:
    path = rng.choice(seeds.pictures)
    data = path.read_bytes()
    (folder / path.name).write_bytes(mutate_bytes(data, rng) if rng.random() < 0.9 else data)
    return ["run", str(seeds.graphs[0]), path.name, "-o", "out.png", "--threads", "1"]


@dataclass(frozen=True)
class Kind:
    """How an input is made, with the command that gets it, and how often."""

    make: Callable[[Seeds, Path, random.Random], list[str]]
    weight: int


PROGRAMS = ("graph", "stamp")
KINDS = {
    "manifest": Kind(manifests, 34),
    "golden": Kind(golden_pairs, 4),
    "graph": Kind(graphs, 22),
    "stamp": Kind(stamps, 10),
    "sidecar": Kind(sidecars, 8),
    "table": Kind(tables, 4),
    "list": Kind(lists, 3),
    "checkpoint": Kind(checkpoints, 9),
    "picture": Kind(pictures, 6),
}
