"""The command line without an export: options, errors, exit codes, and what is printed where."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli, environment, hiresvit_command
from PIL import Image

from hiresvit import cli as commands
from hiresvit.cli import COMMANDS
from hiresvit.commands.output import progress
from hiresvit.errors import UsageError
from hiresvit.models.zoo import MODELS
from hiresvit.report.harmless import harmless
from hiresvit.version import __version__

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command leaves behind lies in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)


def checkpoint(path: Path, variant: str) -> Path:
    """A checkpoint with a variant's key list; its weights are zeros."""
    keys = json.loads((GOLDEN / f"{variant}.keys.json").read_text())["keys"]
    state = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in keys}
    torch.save({"state_dict": state}, path)
    return path


def picture(path: Path) -> Path:
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(path)
    return path


def left_behind(folder: Path, *known: Path) -> set[Path]:
    return set(folder.rglob("*")) - set(known)


def test_help_lists_every_command(cli: Cli) -> None:
    result = cli("--help")
    assert result.code == 0
    assert result.err == ""
    assert all(f"  {name} " in result.out for name in COMMANDS)


def test_without_a_command_the_help_is_a_usage_error(cli: Cli) -> None:
    result = cli()
    assert result.code == 2
    assert "Usage: hiresvit" in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(cli: Cli, name: str) -> None:
    result = cli(name, "--help")
    assert result.code == 0
    assert "--json" in result.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"hiresvit {__version__}\n"


def test_under_nohup_a_hangup_stays_ignored(cli: Cli) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli("--version").code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_list_has_every_variant_and_task(cli: Cli) -> None:
    result = cli("list")
    assert result.code == 0
    rows = [line.split() for line in result.out.splitlines()]
    first = ["hrvit_b1", "segment", "(default)", "512x512", "8.149", "8.1", "15.21", "14.1"]
    assert first in rows
    assert all(any(row[0] == name for row in rows if row) for name in MODELS)
    sizes = [cell for row in rows for cell in row if re.fullmatch(r"\d+x\d+", cell)]
    assert len(sizes) == sum(len(entry.imgsz) for entry in MODELS.values())
    text = " ".join(result.out.split())
    for entry in MODELS.values():
        assert f"{entry.family}: {entry.convention}" in text
        assert entry.weights in text


def test_list_json_is_one_document(cli: Cli) -> None:
    result = cli("list", "--json")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert [model["name"] for model in document["models"]] == list(MODELS)
    [task] = [task for task in document["models"][0]["tasks"] if task["default"]]
    assert task["task"] == "segment"
    assert task["imgsz"] == [512, 512]
    assert (task["params"], task["paper_params"], task["gmacs"], task["paper_gmacs"]) == (
        8.149,
        8.1,
        15.212,
        14.1,
    )


def test_inspect_of_a_model_name(cli: Cli) -> None:
    document = json.loads(cli("inspect", "hrvit_b2", "--json").out)
    assert document["kind"] == "model"
    assert document["tasks"][0]["paper_params"] == 20.8
    assert document["settings"] == ["windows", "head", "drop_path"]
    assert "hrvit_b2" in cli("inspect", "hrvit_b2").out


def test_doctor(cli: Cli) -> None:
    result = cli("doctor", "--json")
    assert result.code == 0
    assert {"machine", "libraries", "abilities"} <= set(json.loads(result.out))
    assert "ONNX Runtime, CPU" in cli("doctor").out


@pytest.mark.parametrize(
    ("missing", "code", "error"),
    [("torch", 0, ""), ("onnxruntime", 6, "error: ONNX Runtime, CPU does not work here: ")],
)
def test_doctor_fails_only_without_what_every_command_needs(missing: str, code: int, error: str) -> None:
    program = f"import sys\nsys.modules[{missing!r}] = None\nfrom hiresvit.cli import main\nsys.exit(main(['doctor']))"
    typed = [sys.executable, "-c", program]
    done = subprocess.run(typed, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(error)
    assert "what works here" in done.stdout, "the tables are printed all the same"
    assert "pip install" in done.stdout


# What was typed, the exit code, and what the one line must say.
BAD_ARGUMENTS = [
    ("exprt", 2, "Did you mean 'export'"),
    ("export", 2, "Missing argument 'MODEL'. (see `hiresvit export --help`)"),
    ("export hrvit_b1 --bogus", 2, "No such option: --bogus"),
    ("export hrvit_b4", 2, "unknown model 'hrvit_b4': did you mean hrvit_b"),
    ("export resnet", 2, "see `hiresvit list`"),
    ("export some/where", 1, "some/where does not exist"),
    ("bench nothing.zip", 1, "nothing.zip does not exist"),
    ("export .", 2, ". is a folder and no model: give a name of `hiresvit list`, or a checkpoint's file"),
    ("export hrvit_b1 --task paint", 2, "'classify', 'segment', 'features', 'masks', 'detect'"),
    ("export hrvit_b1 --task detect", 2, "hrvit_b1 does not serve detect, only segment and classify and features"),
    ("export hrvit_b1 --imgsz 500x512", 2, "nearest: 480x512 or 512x512"),
    ("export hrvit_b1 --imgsz 16", 2, "nearest: 32x32"),
    ("export hrvit_b1 --imgsz 512x", 2, "give HEIGHTxWIDTH such as 512x1024"),
    ("export hrvit_b1 --imgsz x", 2, "give HEIGHTxWIDTH"),
    ("export hrvit_b1 --set windows", 2, "--set windows: give NAME=VALUE such as windows=1,2,9,9"),
    ("export hrvit_b1 --set windows=", 2, "give NAME=VALUE"),
    ("export hrvit_b1 --set windows=1,2,x,9", 2, "windows='1,2,x,9': give four whole numbers"),
    ("export hrvit_b1 --set windows=1-2-9", 2, "windows=(1, 2, 9): give four whole numbers"),
    ("export hrvit_b1 --set windows=7 --set windows=9", 2, "windows is already set to 7"),
    ("export hrvit_b1 --set drop_path=1.5", 2, "drop_path=1.5: give a rate"),
    (
        "export hrvit_b1 --set pooled_size=7",
        2,
        "hrvit_b1 has no argument pooled_size: it takes windows, head",
    ),
    ("export hrvit_b1 --set head=upernet --task features", 2, "head='upernet' serves segment"),
    ("export hrvit_b1 --set task=segment", 2, "--set task=segment: no family has a setting task; there are"),
    ("bench hrvit_b1 --set threads=2", 2, "no family has a setting threads"),
    (
        "compare a.onnx b.onnx --set head=linear --allow-missing head",
        2,
        "--allow-missing head, --set head: for a",
    ),
    ("export lrformer_t --set pooled_size=1", 2, "pooled_size=1"),
    ("export lrformer_t --set pool_small=never", 2, "pool_small='never'"),
    ("export lrformer_t --imgsz 500x512", 2, "nearest: 480x512 or 512x512"),
    ("export lrformer_xl --task segment", 2, "does not serve segment, only classify and features"),
    ("export mixformer_b1 --imgsz 216x224", 2, "216x224"),
    ("export mixformer_b1 --set head=upernet", 2, "mixformer_b1 has no argument head: it takes drop_path"),
    ("export hiri_vit_s --imgsz 224", 2, "224x224"),
    ("export hiri_vit_s --set head=upernet", 2, "head='upernet'"),
    ("export hiri_vit_s --task segment --set head=linear", 2, "head='linear'"),
    ("export hiri_vit_s --set stride_plan=2,3,2,2", 2, "stride_plan=(2, 3, 2, 2)"),
    ("export hrvit_b1 --allow-missing head", 2, "is about a checkpoint: give one with --weights"),
    ("export hrvit_b1 --allow-missing neck", 2, "'neck' is not one of 'head'"),
    ("bench hrvit_b1 --set windows=7", 2, "windows=7: give four whole numbers"),
    ("convert a.pth b.safetensors", 1, "a.pth does not exist"),
    ("convert a.pth b.pth --model hrvit_b1", 2, "give a name that ends in .safetensors"),
    ("convert a.pth b.safetensors --model hrvit", 2, "unknown model 'hrvit'"),
    ("convert a.pth b.safetensors --model hrvit_b1", 1, "a.pth does not exist"),
    ("export hrvit_b1 --num-classes 0", 2, "--num-classes"),
    ("export hrvit_b1 --task features --num-classes 3", 2, "leave num_classes (--num-classes) out"),
    ("export hrvit_b1 --task classify --logits head", 2, "--logits head is about segmentation"),
    ("export hrvit_b1 --opset 11", 2, "opset 11: 17 to 22 can be written"),
    ("export hrvit_b1 --opset 23", 2, "opset 23: 17 to 22 can be written"),
    ("export hrvit_b1 --int8", 2, "INT8 needs pictures to calibrate with: --calib DIR"),
    ("export hrvit_b1 --int8 --calib photos", 1, "photos does not exist; give a folder of pictures"),
    (
        "export hrvit_b1 --calib photos --method mse",
        2,
        "--calib, --method: for --int8 or --htp in integers, which is not given",
    ),
    ("export hrvit_b1 --max-drop 1", 2, "--max-drop: for --int8 or --htp in integers, which is not given"),
    ("export hrvit_b1 --int8 --calib scenes --max-drop -1", 2, "--max-drop -1: give percentage points"),
    ("export hrvit_b1 --int8 --calib scenes --calib-images 1", 2, "--calib-images 1: give at least 2"),
    ("export hrvit_b1 --int8 --calib scenes --opset 18", 2, "FP16 scales need 19 or later"),
    ("export hrvit_b1 --int8 --calib scenes --method best", 2, "'best'"),
    ("export hrvit_b1 --int8 --calib scenes --method mse --calib-table t.json", 2, "leave one out"),
    ("export hrvit_b1 --int8 --calib scenes --calib-table t.json", 1, "t.json: no such file; give a table"),
    ("export hrvit_b1 --int8 --calib scenes --task features --max-drop 1", 2, "features are none"),
    ("export hrvit_b1 --int8 --calib scenes --min-sqnr int9=3", 2, "onnx, simplified, cpu, fp16, int8"),
    ("calibrate nothing.onnx", 2, "INT8 needs pictures"),
    ("calibrate nothing.onnx --calib scenes", 1, "nothing.onnx: no such file; give the path"),
    ("eval hrvit_b1", 2, "Missing option '--dataset'"),
    ("eval hrvit_b1 --dataset kitti", 2, "no data set is called kitti: there is scenes, folder, cityscapes, ade20k"),
    ("eval hrvit_b1 --dataset cityscapes", 2, "give --data DIR; Cityscapes is DIR/leftImg8bit/val/CITY/"),
    ("eval hrvit_b1 --dataset imagenet --data .", 1, "has no folder val or validation or ILSVRC2012_img_val"),
    ("eval hrvit_b1 --dataset ade20k --data nowhere", 1, "nowhere is no folder; ADE20K is DIR/ADEChallengeData2016"),
    (
        "eval hrvit_b1 --dataset cityscapes --data . --split test",
        2,
        "no split of cityscapes is called so; there",
    ),
    ("eval hrvit_b1 --split val", 2, "--split val: a part of a data set, and none is given"),
    ("export hrvit_b1 --int8 --calib coco_stuff", 2, "lies somewhere: give --data DIR; COCO-Stuff is DIR/images"),
    ("export hrvit_b1 --htp int4", 2, "--htp int4: one of fp16, a16w8, a8w8"),
    ("export hrvit_b1 --htp a16w8", 2, "--htp a16w8 needs pictures to calibrate with: --calib DIR"),
    ("export lrformer_t_plus --htp a16w8 --calib scenes", 2, "lrformer_t_plus: the signs of its masks and the places"),
    ("export lrformer_t_plus --contract image --confidence", 2, "no confidence comes of it"),
    ("export lrformer_t_plus --task masks --contract image", 2, "its outputs are raw tensors; export task segment"),
    ("export lrformer_t_plus --task masks --logits head", 2, "is about segmentation; the task is masks"),
    ("export lrformer_t_plus --set postprocess=quick", 2, "postprocess='quick': choose exact or fast"),
    ("export lrformer_t --set postprocess=fast", 2, "lrformer_t has no argument postprocess"),
    ("export hrvit_b1 --htp fp16 --target ar1", 2, "takes integers only: make a16w8, or a8w8"),
    (
        "export hrvit_b1 --htp fp16 --target ar9",
        2,
        "no chip 'ar9': choose one of ar1, ssg2115p, ar2, sar2230p, xr2-gen2",
    ),
    ("export hrvit_b1 --htp fp16 --calib scenes", 2, "--calib: for --int8 or --htp in integers, which is not given"),
    (
        "export hrvit_b1 --htp a16w8 --calib scenes --max-drop 1",
        2,
        "--max-drop: for --int8 or --htp a8w8, which is not",
    ),
    ("export hrvit_b1 --htp a8w8 --calib scenes --int8-residual", 2, "--int8-residual: for --int8, which is not given"),
    ("export hrvit_b1 --target ar1 --emulate full", 2, "--target ar1, --emulate full: for --htp, which is not given"),
    ("export hrvit_b1 --fp16 --min-sqnr htp_fp16=50", 2, "the stages of this export are onnx, simplified, cpu, fp16"),
    ("export hrvit_b1 --split train", 2, "--split: for --int8 or --htp in integers, which is not given"),
    ("export hrvit_b1 --int8 --calib scenes --split val", 2, "no split of scenes is called so; it has none"),
    ("eval hrvit_b1 --dataset scenes --limit 0", 2, "--limit"),
    ("eval nothing.onnx --dataset scenes", 1, "nothing.onnx: no such file"),
    (
        "eval hrvit_nano --dataset scenes --num-classes 5",
        2,
        "hrvit_nano answers classes 0 to 4, scenes has class",
    ),
    ("eval mixformer_b0 --dataset scenes --imgsz 64", 2, "mixformer_b0 is a network to classify"),
    ("export hrvit_b1 --io fp16", 2, "add --fp16"),
    ("export hrvit_b1 --images 0", 2, "--images"),
    ("export hrvit_b1 --threads 0", 2, "--threads"),
    ("export hrvit_b1 --ema", 2, "give one with --weights"),
    ("export hrvit_b1 --weights x.pth --seed 3", 2, "--seed draws fresh weights"),
    ("export hrvit_b1 --weights x.pth", 1, "x.pth does not exist; give a checkpoint's file"),
    ("export hrvit_b1 --min-sqnr many", 2, "--min-sqnr many: give a number"),
    ("export hrvit_b1 --min-sqnr nan", 2, "--min-sqnr nan: give a number"),
    ("export hrvit_b1 --min-cosine onnx=99", 2, "--min-cosine 99: give a value from 0 to 1"),
    ("export hrvit_b1 --min-agreement 99", 2, "--min-agreement 99: give a value from 0 to 1"),
    ("export hrvit_b1 --min-sqnr fp16=50", 2, "the stages of this export are onnx, simplified, cpu"),
    ("export hrvit_b1 --fp16 --dynamic-batch --min-sqnr cpu=50", 2, "are onnx, simplified, fp16"),
    ("inspect nothing_like_it", 2, "unknown model"),
    ("inspect nothing.onnx", 1, "nothing.onnx"),
    ("compare hrvit_b1", 2, "Missing argument 'test'"),
    ("compare a.onnx b.onnx --weights x.pth", 2, "--weights: for a model name"),
    ("compare a.onnx b.onnx --graph fp16", 2, "--graph picks a file of a bundle folder"),
    ("compare a.onnx b.onnx --image no.png", 1, "no.png: no such file"),
    ("compare a.onnx b.onnx --min-cosine 2", 2, "--min-cosine 2: give a value from 0 to 1"),
    ("bench a.onnx --min-s nan", 2, "--min-s nan: give a number of 0 or more"),
    ("bench a.onnx --min-s inf", 2, "--min-s inf: give a number of 0 or more"),
    ("bench a.onnx --budget-ms -1", 2, "--budget-ms -1: give a number of 0 or more"),
    ("bench a.plan", 1, "cannot read a.plan: No such file"),
    ("bench a.plan --threads 2", 2, "a plan runs on the GPU"),
    ("bench a.onnx --cuda-graph", 2, "--cuda-graph is for a plan; there is none in a.onnx"),
    ("inspect a.plan", 1, "cannot read a.plan: No such file"),
    ("run hrvit_b1 no.png", 1, "no.png: no such file; give the path of a picture"),
    ("run hrvit_b1 no.png -o overlay.jpg", 2, "the overlay is a PNG"),
]


@pytest.mark.parametrize(("typed", "code", "said"), BAD_ARGUMENTS, ids=[row[0] for row in BAD_ARGUMENTS])
def test_bad_arguments(cli: Cli, tmp_path: Path, typed: str, code: int, said: str) -> None:
    result = cli(*typed.split())
    assert result.code == code
    assert said in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert left_behind(tmp_path) == set()


def test_a_seed_is_not_for_a_checkpoint_that_stands_in_the_models_place(cli: Cli, tmp_path: Path) -> None:
    weights = Path(__file__).parents[2] / "examples" / "hrvit_nano.safetensors"
    result = cli("export", str(weights), "--seed", "3")
    assert result.code == 2
    assert "--seed draws fresh weights: leave it out with those of " in result.err
    assert left_behind(tmp_path) == set()


def test_an_error_is_a_document_too(cli: Cli) -> None:
    result = cli("export", "hrvit_b4", "--json")
    document = json.loads(result.out)
    assert document["schema_version"] == 1
    assert document["error"]["exit_code"] == result.code == 2
    assert result.err == f"error: {document['error']['message']}\n"


def test_a_usage_error_is_a_document_too(cli: Cli) -> None:
    result = cli("export", "--bogus", "--json")
    assert result.code == 2
    assert json.loads(result.out)["error"]["exit_code"] == 2


class Runs:
    """Unpickled it would leave a file behind."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def truncated(path: Path) -> None:
    checkpoint(path, "hrvit_b1_seg")
    path.write_bytes(path.read_bytes()[:-1000])


def pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Runs()}, protocol=2))  # as PyTorch wrote before it took to zip


def saved_code(path: Path) -> None:
    torch.save({"state_dict": Runs()}, path)


BAD_CHECKPOINTS: Mapping[str, tuple[Any, str]] = {
    "truncated": (truncated, "truncated, damaged or not a checkpoint (EOFError); copy or download it again"),
    "pickled code": (pickled_code, "not loaded: it asks for posix.system"),
    "saved code": (saved_code, "not loaded: it asks for posix.system"),
    "another variant": (lambda path: checkpoint(path, "hrvit_b2_seg"), "looks like hrvit_b2"),
    "another task": (lambda path: checkpoint(path, "hrvit_b1"), "no segmentation head"),
}


@pytest.mark.parametrize("what", list(BAD_CHECKPOINTS))
def test_bad_checkpoints(cli: Cli, tmp_path: Path, what: str) -> None:
    make, said = BAD_CHECKPOINTS[what]
    weights = tmp_path / "w.pth"
    make(weights)
    result = cli("export", "hrvit_b1", "--weights", weights, "--imgsz", "64")
    assert result.code == 1
    assert said in result.err
    assert result.err.count("\n") == 1
    assert left_behind(tmp_path, weights) == set(), "no folder, and nothing was executed"


def test_another_number_of_classes_names_the_option(cli: Cli, tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "w.pth", "hrvit_b1_seg")
    result = cli("export", "hrvit_b1", "--weights", weights, "--imgsz", "64", "--num-classes", "7")
    assert result.code == 1
    assert "pass --num-classes 19" in result.err


def test_convert(cli: Cli, tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "w.pth", "hrvit_b1")
    target = tmp_path / "w.safetensors"
    result = cli("convert", weights, target, "--model", "hrvit_b1", "--task", "classify")
    assert result.code == 0
    assert f"wrote {target}: " in result.out
    assert f"next: hiresvit export {target}" in result.out
    again = cli("convert", weights, target, "--model", "hrvit_b1", "--task", "features", "--json")
    assert (again.code, again.err) == (
        1,
        f"error: {target} exists; pass --force to replace it or choose another name\n",
    )
    again = cli("convert", weights, target, "--model", "hrvit_b1", "--task", "features", "--force", "--json")
    found = json.loads(again.out)
    assert found["left_out"] == ["head.*"]
    assert found["bytes"] == target.stat().st_size


def test_convert_without_a_head(cli: Cli, tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "w.pth", "lrformer_t_backbone")
    target = tmp_path / "w.safetensors"
    asked = ("convert", weights, target, "--model", "lrformer_t")
    result = cli(*asked)
    assert result.code == 1
    assert "no segmentation head (no decode_head.* keys)" in result.err
    assert "--allow-missing head" in result.err
    assert not target.exists()
    result = cli(*asked, "--task", "classify", "--allow-missing", "head")
    assert result.code == 0
    assert "note: head.* (not in w.pth): nobody trained this, so the answers mean nothing" in result.out
    result = cli("convert", weights, target, "--model", "lrformer_s", "--force")
    assert "this looks like lrformer_t" in result.err
    assert target.exists()


def test_an_output_below_a_file_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = cli("export", "hrvit_b1", "--imgsz", "64", "-o", blocked / "bundle")
    assert result.code == 1
    assert result.err == f"error: cannot write {blocked / 'bundle'}: File exists ({blocked})\n"
    assert left_behind(tmp_path, blocked) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    blocked = tmp_path / "folder"
    blocked.mkdir(mode=0o500)
    result = cli("export", "hrvit_b1", "--imgsz", "64", "-o", blocked / "bundle")
    assert result.code == 1
    assert "Permission denied" in result.err


def test_a_folder_that_is_no_bundle_is_never_replaced(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "photos"
    target.mkdir()
    result = cli("export", "hrvit_b1", "--imgsz", "64", "-o", target, "--force")
    assert result.code == 1
    assert "is not a bundle" in result.err
    assert target.is_dir()


def test_an_image_that_is_no_image(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "notes.jpg"
    image.write_text("not a picture")
    result = cli("run", "hrvit_b1", image)
    assert result.code == 1
    assert "notes.jpg: not a readable image" in result.err
    assert left_behind(tmp_path, image) == set()


def test_the_picture_itself_is_never_overwritten(cli: Cli, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    before = image.read_bytes()
    result = cli("run", "hrvit_b1", image, "-o", tmp_path / "." / "a.png")
    assert result.code == 2
    assert "this is the picture itself" in result.err
    assert image.read_bytes() == before


def test_a_folder_without_a_manifest_is_a_damaged_bundle(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("inspect", "empty").code == 7


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "a.onnx: no such file; give the path of an .onnx graph"),
        (b"", "a.onnx is empty; copy or export it again"),
        (b"not a graph", "a.onnx is not an ONNX graph: it is text that begins 'not a graph'"),
        (b"\x08\x09", "a.onnx is not an ONNX graph: it has no outputs"),
    ],
)
def test_a_file_that_is_no_graph_is_the_same_to_all(cli: Cli, tmp_path: Path, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / "a.onnx").write_bytes(data)
    commands = ("inspect", "bench", "compare a.onnx", "check", "build", "calibrate --calib scenes")
    for typed in commands:
        result = cli(*typed.split(), "a.onnx")
        assert (typed, result.code, result.err) == (typed, 1, f"error: {said}\n")


def test_classify_prints_the_five_best(cli: Cli, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    result = cli("run", "hrvit_b1", image, "--task", "classify", "--imgsz", "32", "--json")
    assert result.code == 0
    top = json.loads(result.out)["top"]
    assert len(top) == 5
    assert [row["probability"] for row in top] == sorted((r["probability"] for r in top), reverse=True)
    assert left_behind(tmp_path, image) == set()


def test_classify_has_no_overlay(cli: Cli, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    result = cli("run", "hrvit_b1", image, "--task", "classify", "--imgsz", "32", "-o", "x.png")
    assert result.code == 2
    assert "--output is for the overlay of a segmentation" in result.err


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `inspect` fail: what the machine does to us cannot be brought about here."""

    def inspect_source(_text: str, **_options: object) -> dict[str, Any]:
        raise error

    monkeypatch.setattr("hiresvit.workflows.inspect.inspect_source", inspect_source)


def test_a_mistake_of_ours_is_one_line_and_offers_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIRESVIT_DEBUG", raising=False)
    fails_with(monkeypatch, IndexError("list index\nout of range"))
    result = cli("inspect", "x", "--json")
    assert result.code == 1
    said = "internal error: IndexError: list index out of range; set HIRESVIT_DEBUG=1 for the traceback"
    assert result.err == said + "\n"
    assert json.loads(result.out)["error"] == {"message": said, "exit_code": 1}


def test_the_traceback_comes_when_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIRESVIT_DEBUG", "1")
    fails_with(monkeypatch, IndexError("list index out of range"))
    with pytest.raises(IndexError):
        cli("inspect", "x")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "error: out of memory; close other programs or choose a smaller --imgsz\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "error: out of memory (Def"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (UsageError("a\nb"), 2, "error: a b\n"),
    ],
    ids=["memory", "torch's memory", "interrupt", "two lines"],
)
def test_what_the_machine_does_to_us(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    fails_with(monkeypatch, error)
    result = cli("inspect", "x")
    assert result.code == code
    assert result.err.startswith(said)


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        hiresvit_command("list"), env=environment(), stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.returncode == commands.BROKEN_PIPE
    assert done.stderr == b""


@pytest.mark.parametrize("closed", ["1", "2", "1 2"])
def test_streams_that_are_closed_are_nobodys(closed: str) -> None:
    command = shlex.join(map(str, hiresvit_command("list")))
    shell = f"{command} {' '.join(f'{number}>&-' for number in closed.split())}"
    process = subprocess.run(["sh", "-c", shell], check=False, env=environment(), capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "colours", "shown"),
    [
        ("a\x1b[31mb\nc", False, "a\\x1b[31mb\nc"),
        ("a\x1b[31mb", True, "a\x1b[31mb"),  # our own
        ("a\x1b]0;title\x07b\rc\x9bd", True, "a\\x1b]0;title\\x07b\\rc\\x9bd"),
    ],
)
def test_names_have_no_power_over_the_terminal(text: str, colours: bool, shown: str) -> None:
    assert harmless(text, colours) == shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            hiresvit_command("list"), env=environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"error: cannot write the result to stdout: No space left on device\n"


def test_output_survives_a_terminal_of_few_characters() -> None:
    done = subprocess.run(
        hiresvit_command("list"),
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"hrvit_b1" in done.stdout
    assert done.stdout.isascii()


def test_progress_is_a_line_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with progress() as on_step:
            for name, fraction in (("export", None), ("plan: fusing", 0.5), ("plan", 1.0), ("latency", None)):
                on_step(name, fraction)
        monkeypatch.undo()
    # What the closed end wrote comes in as many pieces as the kernel likes, and then an error: nobody is there.
    written = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 1 << 16):
            written += piece
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
    assert re.findall(r"  (\w+) +[0-9.]+ s", plain) == ["export", "plan", "latency"]


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_step:
        on_step("export", None)
    assert capsys.readouterr() == ("", "")


def test_what_onnxruntime_prints_when_it_is_imported_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nos.write(2, b'GPU device discovery failed')\n")
    code = "from hiresvit.commands.output import load_onnxruntime as f\nf()\nimport os, onnxruntime\n"
    code += "os.write(2, b'after')"
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b"after"
