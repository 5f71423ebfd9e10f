"""A second runner and a second data set, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, run_program
from PIL import Image

from hiresvit.data.scenes import Scenes
from hiresvit.errors import install_line

STREET = Path(__file__).parents[2] / "examples" / "street.jpg"
HIDDEN = "import sys\nsys.modules['openvino'] = None\n"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two scenes as a data set on a disk, with one class's name and colour of its own."""
    scenes = Scenes(2, (64, 64))
    for index in range(2):
        sample = scenes[index]
        for part, values in (("images", sample.image), ("labels", sample.labels)):
            path = tmp_path / "photos" / part / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values)).save(path)
    classes = [{"index": index, "name": name} for index, name in scenes.classes.items()]
    classes[0] |= {"name": "carriageway", "colour": "#010203"}
    text = json.dumps({"task": "segment", "ignore": 255, "classes": classes})
    (tmp_path / "photos" / "classes.json").write_text(text, encoding="utf-8")
    return tmp_path / "photos"


def test_bench_shows_each_runner_beside_the_others(cli: Cli, tiny_bundle: Path) -> None:
    typed = ("--runner", "onnxruntime", "--runner", "openvino", "--min-s", "0", "--threads", "1", "--json")
    result = cli("bench", tiny_bundle, *typed)
    assert result.code == 0, result.err
    name = tiny_bundle.name
    sides = json.loads(result.out)["latency"]["sides"]
    assert list(sides) == [f"{name}/cpu (onnxruntime)", f"{name}/cpu (openvino)"]


def test_compare_opens_the_second_with_the_runner(cli: Cli, tiny_bundle: Path) -> None:
    graph = tiny_bundle / "simplified.onnx"
    result = cli("compare", graph, graph, "--runner", "openvino", "--images", "1", "--min-sqnr", "90", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["parity"]
    assert (found["reference"], found["stages"][0]["stage"]) == ("simplified.onnx", "simplified.onnx (openvino)")
    # Two libraries sum in their own order: not the same bits, which would mean the same library twice.
    assert found["stages"][0]["report"]["outputs"][0]["max_abs"] > 0


def test_bfloat16_opens_a_bundle_and_is_held_to_its_own_gate(cli: Cli, tiny_bundle: Path) -> None:
    """The golden pair of the FP32 graph must come out: to 15 dB, where FP32 is held to 90."""
    typed = ("--runner", "openvino", "--runner", "openvino:bf16", "--json")
    result = cli("verify", tiny_bundle, "--graph", "cpu", *typed)
    sides = json.loads(result.out)["verify"]["sides"]
    if "not in bf16" in (sides[1]["why"] or ""):
        pytest.skip(sides[1]["why"])
    assert result.code == 0, result.err
    assert [side["gate"]["min_sqnr_db"] for side in sides] == [90, 15]
    assert [side["origin"]["backend"] for side in sides] == ["OpenVINO", "OpenVINO bf16"]
    found = [side["report"]["outputs"][0]["sqnr_db"] for side in sides]
    assert found[0] > 100
    assert 15 < found[1] < 60, "8 bits of mantissa, which FP32's gate would refuse"
    benched = cli("bench", tiny_bundle, "--runner", "openvino:bf16", "--min-s", "0", "--threads", "1", "--json")
    assert benched.code == 0, benched.err
    assert f"{tiny_bundle.name}/cpu (openvino:bf16): computed in bfloat16" in benched.err


def test_run_and_eval_take_it_too(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    result = cli("run", tiny_bundle, STREET, "--runner", "openvino", "-o", tmp_path / "o.png", "--json")
    assert json.loads(result.out)["source"].endswith("/cpu (openvino)")
    result = cli("eval", tiny_bundle, "--runner", "openvino", "--dataset", "scenes", "--limit", "1", "--json")
    assert json.loads(result.out)["accuracy"]["sides"][0]["name"].endswith("/cpu (openvino)")


@pytest.mark.parametrize(
    ("runner", "code", "says"),
    [
        ("onyx", 2, "runner 'onyx': one of onnxruntime[:PROVIDER], openvino[:bf16], qnn[:CHIP], tensorrt"),
        ("onnxruntime:cuda", 2, "no execution provider 'cuda' here, only"),
        ("onnxruntime:cuda", 2, "onnxruntime-gpu"),
        ("tensorrt", 2, "tensorrt opens .plan and .engine"),
        ("openvino:GPU", 2, "openvino computes in f32 or bf16, not in 'GPU'; give openvino:bf16"),
    ],
)
def test_runners_that_cannot_be(cli: Cli, tiny_bundle: Path, runner: str, code: int, says: str) -> None:
    result = cli("bench", tiny_bundle, "--runner", runner)
    assert result.code == code
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_model_name_is_computed_by_pytorch(cli: Cli) -> None:
    result = cli("bench", "hrvit_b1", "--runner", "openvino")
    assert (result.code, result.err) == (
        2,
        "error: --runner picks what opens a file; hrvit_b1 is computed by PyTorch\n",
    )


def test_openvino_that_is_not_installed(tiny_bundle: Path, tmp_path: Path) -> None:
    result = run_program(tmp_path, "bench", tiny_bundle, "--runner", "openvino", before=HIDDEN)
    assert result.code == 6
    assert install_line("openvino") in result.err
    assert result.err.count("\n") == 1


def test_eval_of_a_folder(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    result = cli("eval", tiny_bundle, "--data", photos, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["accuracy"]
    assert (found["dataset"]["name"], found["images"]) == (str(photos), 2)
    assert "carriageway" in {row["name"] for row in found["sides"][0]["classes"]}
    assert cli("eval", tiny_bundle, "--dataset", "folder", "--data", photos, "--json").out == result.out


def test_run_has_the_names_and_colours_of_the_folder(cli: Cli, tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    plain = json.loads(cli("run", tiny_bundle, STREET, "-o", tmp_path / "a.png", "--json").out)
    named = json.loads(cli("run", tiny_bundle, STREET, "-o", tmp_path / "b.png", "--data", photos, "--json").out)
    renamed = {row["class"]: row["name"] for row in named["shares"]}
    for row in plain["shares"]:
        assert renamed[row["class"]] == {"road": "carriageway"}.get(row["name"], renamed[row["class"]])
    assert ("road" in {row["name"] for row in plain["shares"]}) == ("carriageway" in renamed.values())
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        (["--dataset", "folder"], 2, "the data set folder lies somewhere: give --data DIR"),
        (["--dataset", "scenes", "--data", "."], 2, "the data set scenes is drawn and lies nowhere"),
        (
            ["--dataset", "kitti"],
            2,
            "no data set is called kitti: there is scenes, folder, cityscapes, ade20k, coco_stuff",
        ),
        (["--data", "nowhere"], 1, "nowhere is no folder"),
    ],
)
def test_data_that_cannot_be(cli: Cli, tiny_bundle: Path, typed: list[str], code: int, says: str) -> None:
    for command in (["eval", tiny_bundle], ["run", tiny_bundle, STREET]):
        result = cli(*command, *typed)
        assert result.code == code
        assert says in result.err
        assert result.err.count("\n") == 1


def test_a_picture_without_labels(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    (photos / "labels" / "1.png").unlink()
    result = cli("eval", tiny_bundle, "--data", photos)
    assert result.code == 1
    assert f"1 of 2 pictures have no labels, the first is {photos / 'images' / '1.png'}" in result.err
