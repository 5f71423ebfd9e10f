"""Checkpoints that real trainers wrote (tests/golden/write_checkpoints.py): all load, and the right set of weights."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from test_checkpoint import GOLDEN, Shapes, load_weights, module

from hiresvit.errors import HiresvitError
from hiresvit.models.create import convert_weights, create_model, recognise_spec
from hiresvit.models.weights.file import Checkpoint, read_checkpoint

FIRST = "stem.conv1.weight"
# What write_checkpoints.py calls Backbone, Net and Segmentor.
BACKBONE: Shapes = {
    "stem.conv1.weight": (4, 3, 3, 3),
    **{f"stem.bn1.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")},
    "stem.bn1.num_batches_tracked": (),
    "features.1.attn.to_qkv.weight": (8, 4),
}
CLASSIFY: Shapes = {**BACKBONE, "head.classifier.weight": (10, 4), "head.classifier.bias": (10,)}
SEGMENT: Shapes = {
    **{f"backbone.{key}": shape for key, shape in BACKBONE.items()},
    "decode_head.conv_seg.weight": (19, 4, 1, 1),
    "decode_head.conv_seg.bias": (19,),
}
PACKED = GOLDEN / "checkpoints.tar.xz"
with tarfile.open(PACKED) as archive:
    EXPECTED: dict[str, dict[str, Any]] = json.loads(archive.extractfile("expected.json").read())  # type: ignore[union-attr]
SEVERAL = {"student_teacher.pth"}
REFUSED = {name for name, row in EXPECTED.items() if "refused" in row}
# Whose own loaders take the average: they put it where the weights are.
EXCHANGED = {"mmengine_ema.pth", "lightning_ema.ckpt", "mmcv_epoch_ema_early.pth"}
PLUS = "mmengine_plus.pth"  # a whole model and no miniature
RETINANET, FASTER = "mmengine_retinanet.pth", "mmengine_faster_rcnn.pth"  # the same
LOADED = sorted(EXPECTED.keys() - SEVERAL - REFUSED - {PLUS, RETINANET, FASTER})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("trainers")
    with tarfile.open(PACKED) as archive:
        archive.extractall(made, filter="data")
    return made


def first(checkpoint: Checkpoint) -> float:
    [found] = [value for key, value in checkpoint.tensors.items() if key.endswith(FIRST)]
    return float(found.double().sum())


@pytest.mark.parametrize("name", LOADED)
def test_the_weights_as_the_trainers_own_loader_takes_them(folder: Path, name: str) -> None:
    wanted = EXPECTED[name]["ema" if name in EXCHANGED else "plain"]
    assert first(read_checkpoint(folder / name)) == pytest.approx(wanted, abs=1e-12)  # the same numbers, summed alike


@pytest.mark.parametrize("name", [name for name in LOADED if "paddle" not in name])
def test_every_key_is_accounted_for(folder: Path, name: str) -> None:
    segment = name.startswith("mm")
    model = module(SEGMENT if segment else CLASSIFY)
    report = load_weights(model, folder / name, task="segment" if segment else "classify")
    assert report.loaded == len(SEGMENT if segment else CLASSIFY)
    assert report.left_out == ()
    assert load_weights(module(BACKBONE), folder / name, task="features").loaded == len(BACKBONE)


@pytest.mark.parametrize("name", LOADED)
def test_the_average_where_there_is_one(folder: Path, name: str) -> None:
    if "ema" in EXPECTED[name]:
        found = read_checkpoint(folder / name, ema=True)
        assert first(found) == pytest.approx(EXPECTED[name]["ema"], abs=1e-12)
        plain = read_checkpoint(folder / name)
        assert found.tensors.keys() == plain.tensors.keys()
        assert any("EMA" in note or "averaged" in note for note in plain.notes)
    else:
        with pytest.raises(HiresvitError, match=r"has no EMA weights, only .*; leave out --ema"):
            read_checkpoint(folder / name, ema=True)


@pytest.mark.parametrize("name", ["mmengine_ema.pth", "lightning_ema.ckpt"])
def test_the_weights_as_trained_can_be_had(folder: Path, name: str) -> None:
    [note] = [note for note in read_checkpoint(folder / name).notes if "--entry" in note]
    found = read_checkpoint(folder / name, entry=note.rpartition(" ")[2])
    assert first(found) == pytest.approx(EXPECTED[name]["plain"], abs=1e-12)
    assert found.tensors.keys() == read_checkpoint(folder / name).tensors.keys()


def test_of_two_models_one_must_be_asked_for(folder: Path) -> None:
    path = folder / "student_teacher.pth"
    with pytest.raises(HiresvitError, match=r"student \(9 tensors\), teacher \(9 tensors\): choose one with --entry"):
        read_checkpoint(path)
    for entry in ("student", "teacher"):
        found = read_checkpoint(path, entry=entry)
        assert found.source == entry
        assert first(found) == pytest.approx(EXPECTED[path.name][entry], abs=1e-12)
    with pytest.raises(HiresvitError, match=r"has no entry pupil; it has student \(9 tensors\), teacher"):
        read_checkpoint(path, entry="pupil")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_loaded_says_why(folder: Path, name: str) -> None:
    with pytest.raises(HiresvitError) as caught:
        read_checkpoint(folder / name)
    assert EXPECTED[name]["refused"] in str(caught.value)


def test_the_names_of_classes_come_along(folder: Path) -> None:
    palette = [[128, 64, 128], [70, 130, 180]]
    meta = read_checkpoint(folder / "mmcv.pth").meta
    assert (meta["CLASSES"], meta["PALETTE"]) == (["road", "sky"], palette)
    meta = read_checkpoint(folder / "mmengine_ema.pth").meta
    assert meta["dataset_meta"] == {"classes": ["road", "sky"], "palette": palette}
    assert read_checkpoint(folder / "timm.pth.tar").meta["arch"] == "hrvit_b1"


def test_a_whole_segmentor_that_answers_with_masks(folder: Path, tmp_path: Path) -> None:
    """LRFormer-T+ as mmseg's wrapper of Mask2Former has it: 639 keys, and 19 classes in 20 rows."""
    path = folder / PLUS
    asked = recognise_spec(path)
    assert (asked.spec.name, asked.spec.task, asked.spec.num_classes) == ("lrformer_t_plus", "segment", 19)
    assert asked.notes[0].startswith(f"{PLUS} is recognised as lrformer_t_plus for segment, 19 classes")
    model: Any = create_model(str(path), "masks", imgsz=64)
    assert (model.loaded.loaded, model.loaded.left_out) == (639, ())
    assert model.loaded.labels.names == tuple(f"class {number}" for number in range(19))
    trained = model.get_parameter("backbone.block1.0.attn.kv.0.bias").detach()
    assert float(trained.double().sum()) == pytest.approx(EXPECTED[PLUS]["plain"], abs=1e-12)
    convert_weights(asked.spec, path, tmp_path / "a.safetensors")
    again = recognise_spec(tmp_path / "a.safetensors").spec
    assert (again.name, again.task, again.num_classes) == ("lrformer_t_plus", "segment", 19)
    features: Any = create_model(str(path), "features", imgsz=64)
    assert (features.spec.name, features.loaded.left_out) == ("lrformer_t", ("decode_head.*",))


def test_a_whole_detector_by_the_names_of_mmdet(folder: Path) -> None:
    """MixFormer-B0 in mmdet's RetinaNet, which is loaded whole, and in its Faster R-CNN, which is named."""
    asked = recognise_spec(folder / RETINANET)
    assert (asked.spec.name, asked.spec.task, asked.spec.num_classes) == ("mixformer_b0", "detect", 7)
    model: Any = create_model(str(folder / RETINANET), "detect", imgsz=64)
    assert model.loaded.left_out == ()
    assert model.loaded.labels.names == tuple("abcdefg")
    trained = model.state_dict()[f"backbone.{next(key for key in listed('mixformer_b0') if key.startswith('layers'))}"]
    assert float(trained.double().sum()) == pytest.approx(EXPECTED[RETINANET]["plain"], abs=1e-12)
    with pytest.raises(HiresvitError, match=r"two-stage detector \(roi_head\.\*, rpn_head\.\*\).*--task features"):
        create_model("mixformer_b0", "detect", imgsz=64, weights=folder / FASTER)
    features: Any = create_model("mixformer_b0", "features", imgsz=64, weights=folder / FASTER)
    assert features.loaded.left_out == ("neck.*", "roi_head.*", "rpn_head.*")


def listed(name: str) -> list[str]:
    return [key for key, _, _ in json.loads((GOLDEN / f"{name}.keys.json").read_text())["keys"]]


def test_what_lies_beside_the_weights_is_said(folder: Path) -> None:
    notes = {name: " ".join(read_checkpoint(folder / name).notes) for name in LOADED}
    assert "never made: mmengine.logging.history_buffer.HistoryBuffer" in notes["mmengine.pth"]
    assert "left out by name: criterion.*" in notes["lightning.ckpt"]
    assert "left out by name: total_ops, total_params" in notes["thop.pth"]
    assert "pickled whole" in notes["whole.pth"]
    assert "argparse.Namespace" in notes["timm.pth.tar"]
