"""Weights that nobody trained and names that nobody gave: every command that prints an answer or a score says so.

On stderr for people, in ``notes`` of ``--json``, whatever the answer comes from: a model's name, a checkpoint without
its head, a bundle, or a single graph out of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import Cli, Result
from PIL import Image
from tiny import CLASSES, build_tiny, tiny_model, tiny_spec

from hiresvit.bundle.folder import read_bundle
from hiresvit.bundle.manifest import Weights
from hiresvit.export.contract import fresh_weights, read_labels, read_untrained, untrained_note
from hiresvit.models.zoo import MODELS
from hiresvit.workflows.export import export_bundle
from hiresvit.workflows.export_settings import ExportSettings

FRESH = untrained_note(fresh_weights(0))
HEAD = untrained_note("decode_head.* (not in body.pth)")
NAMES = ["road", "car", "sky", "tree", "person"]
COLOURS = [[index, 2 * index, 255 - index] for index in range(CLASSES)]


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "hrvit_b1", replace(MODELS["hrvit_b1"], build=build_tiny))
        yield


@pytest.fixture(scope="module")
def folder(_tiny: None, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, checkpoints of the tiny model as mmseg writes them, and a bundle of each."""
    folder = tmp_path_factory.mktemp("notes")
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "photo.png")
    state = tiny_model(tiny_spec()).state_dict()
    meta = {"CLASSES": tuple(NAMES), "PALETTE": COLOURS, "mmseg_version": "0.30.0"}
    torch.save({"meta": meta, "state_dict": state}, folder / "my.pth")
    body = {key: value for key, value in state.items() if not key.startswith("decode_head.")}
    torch.save({"state_dict": body}, folder / "body.pth")
    settings = ExportSettings(plan=False, latency=False, images=1, threads=1)
    for name, weights in (("trained", folder / "my.pth"), ("head", folder / "body.pth")):
        chosen = replace(settings, weights=weights, allow_missing_head=name == "head")
        export_bundle(tiny_spec(), folder / name, chosen, command=["hiresvit", "export"])
    shutil.copytree(tiny_bundle, folder / "fresh")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


MODEL = ("--imgsz", "64x96", "--num-classes", str(CLASSES))
UNTRAINED = [
    (("hrvit_b1", *MODEL), FRESH),
    (("hrvit_b1", *MODEL, "--weights", "body.pth", "--allow-missing", "head"), HEAD),
    (("fresh",), FRESH),
    (("head",), HEAD),
    (("fresh/fp16.onnx",), FRESH),
    (("head/cpu.onnx",), HEAD),
]
TRAINED = [("hrvit_b1", *MODEL, "--weights", "my.pth"), ("trained",), ("trained/fp32.onnx",)]
COMMANDS = {
    "run": ("photo.png",),
    "eval": ("--data", "set", "--limit", "1"),
    "compare": ("--images", "1"),
    "bench": ("--min-s", "0"),
}


def call(cli: Cli, command: str, source: tuple[str, ...], *more: str) -> Result:
    first, *options = source
    given = (first,) if command == "compare" else ()
    return cli(command, first, *given, *COMMANDS[command], *options, *more)


@pytest.fixture(scope="module", autouse=True)
def _labelled(folder: Path) -> None:
    """A data set of the tiny model's classes, since the scenes have others."""
    for part in ("images", "labels"):
        (folder / "set" / part).mkdir(parents=True)
    shutil.copy(folder / "photo.png", folder / "set" / "images" / "a.png")
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(folder / "set" / "labels" / "a.png")
    classes = [{"index": index, "name": name} for index, name in enumerate(NAMES)]
    (folder / "set" / "classes.json").write_text(json.dumps({"task": "segment", "classes": classes}))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("source", "said"), UNTRAINED, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_answers_of_untrained_weights_say_so(cli: Cli, command: str, source: tuple[str, ...], said: str) -> None:
    result = call(cli, command, source, "--json")
    assert result.code == 0, result.err
    notes = json.loads(result.out)["notes"]
    assert sum(note.endswith(said) for note in notes) == 1, notes
    assert all(f"note: {note}\n" in result.err for note in notes)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("source", TRAINED, ids=lambda value: str(value[0]))
def test_answers_of_trained_weights_do_not(cli: Cli, command: str, source: tuple[str, ...]) -> None:
    result = call(cli, command, source, "--json")
    assert result.code == 0, result.err
    assert (json.loads(result.out)["notes"], result.err) == ([], "")


def test_people_read_it_too(cli: Cli) -> None:
    result = call(cli, "run", ("fresh",))
    assert f"note: fresh/cpu: {FRESH}\n" in result.err


def test_every_graph_and_the_manifest_carry_it(folder: Path) -> None:
    for name, said in (("fresh", fresh_weights(0)), ("head", "decode_head.* (not in body.pth)"), ("trained", "")):
        bundle = read_bundle(folder / name)
        graphs = [folder / name / entry.name for entry in bundle.manifest.files if entry.name.endswith(".onnx")]
        assert len(graphs) >= 3, "fp32, simplified and cpu"
        for graph in graphs:
            props = onnx.load(graph, load_external_data=False).metadata_props
            assert read_untrained({prop.key: prop.value for prop in props}) == said
        assert (untrained_note(said) in bundle.manifest.notes) == bool(said)
        assert bundle.manifest.weights.fresh == (name == "fresh")
    assert not Weights("a.pth", "0" * 64).fresh


def test_older_bundles_say_it_by_what_their_manifest_has(cli: Cli, schema_3: Path) -> None:
    result = cli("bench", schema_3, "--min-s", "0", "--json")
    assert result.code == 0, result.err
    weights = read_bundle(schema_3).manifest.weights
    assert weights.fresh
    assert [note for note in json.loads(result.out)["notes"] if note.endswith(untrained_note(weights.source))]


def shown(result: Result) -> tuple[dict[str, Any], list[str]]:
    assert result.code == 0, result.err
    document = json.loads(result.out)
    return document, [row["name"] for row in document["shares"]]


@pytest.mark.parametrize("source", TRAINED, ids=lambda value: str(value[0]))
def test_the_checkpoints_names_reach_the_answer(cli: Cli, folder: Path, source: tuple[str, ...]) -> None:
    document, names = shown(call(cli, "run", source, "--json"))
    assert document["labels"] == {"source": "checkpoint"}
    assert set(names) <= set(NAMES)
    assert read_bundle(folder / "trained").manifest.labels == {
        "names": NAMES,
        "colours": COLOURS,
        "source": "checkpoint",
    }
    with Image.open("photo-segment.png") as picture, Image.open("photo.png") as before:
        index = NAMES.index(names[0])
        mixed = (np.asarray(before).astype(np.uint16) + np.array(COLOURS[index]) + 1) >> 1
        assert (np.asarray(picture) == mixed).all(axis=2).any(), "painted in the checkpoint's colour"


def test_names_that_are_given_have_the_say(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    document, names = shown(cli("run", "trained", "photo.png", "--classes", tmp_path / "names.txt", "--json"))
    assert document["labels"] == {"source": "file"}
    assert set(names) <= set("abcde")
    result = cli("run", "trained", "photo.png", "--classes", "imagenet")
    assert (result.code, result.err) == (
        2,
        "error: --classes imagenet: 1000 names for a network of 5 classes; give one for each\n",
    )
    result = cli("run", "trained", "photo.png", "--classes", "imagenet", "--dataset", "scenes")
    assert result.code == 2
    assert "both name the classes" in result.err


def test_assumed_names_are_said_and_in_no_bundle(cli: Cli, folder: Path) -> None:
    document, names = shown(call(cli, "run", ("fresh",), "--json"))
    assert document["labels"] == {"source": "assumed cityscapes"}
    assert document["notes"][-1].startswith("19 classes without names: taken for those of Cityscapes")
    assert not any(name.startswith("class ") for name in names)
    assert read_bundle(folder / "fresh").manifest.labels is None
    document, names = shown(call(cli, "run", ("head",), "--json"))
    assert document["labels"] == {"source": ""}
    assert all(name.startswith("class ") for name in names)


def test_a_graph_alone_knows_its_names(folder: Path) -> None:
    props = onnx.load(folder / "trained" / "simplified.onnx").metadata_props
    labels = read_labels({prop.key: prop.value for prop in props}, tiny_spec())
    assert labels is not None
    assert labels.names == tuple(NAMES)


def test_a_calibration_says_it(cli: Cli) -> None:
    given = ("--calib", "scenes", "--calib-images", "2", "-o", "int8.onnx", "--force")
    result = cli("calibrate", "fresh", *given, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["notes"] == [FRESH]
    result = cli("inspect", "int8.onnx", "--json")
    assert json.loads(result.out)["notes"] == [FRESH]


def test_a_checkpoint_is_inspected(cli: Cli) -> None:
    found = json.loads(cli("inspect", "my.pth", "--json").out)
    [model] = found["models"]
    assert (found["kind"], found["entry"]) == ("checkpoint", "state_dict")
    assert (model["name"], model["task"], model["num_classes"], model["labels"]) == (
        "hrvit_b1",
        "segment",
        5,
        "checkpoint",
    )
    text = cli("inspect", "my.pth").out
    assert "hrvit_b1" in text
    assert "segment" in text
    assert cli("run", "my.pth", "photo.png", "--imgsz", "64x96").code == 0


def test_one_of_several_sets_is_inspected(cli: Cli, tmp_path: Path) -> None:
    state = torch.load("my.pth")["state_dict"]
    torch.save({"student": state, "teacher": {**state, "decode_head.more": torch.ones(1)}}, tmp_path / "two.pth")
    result = cli("inspect", tmp_path / "two.pth")
    assert result.code == 1
    assert "choose one with --entry student" in result.err
    found = json.loads(cli("inspect", tmp_path / "two.pth", "--entry", "teacher", "--json").out)
    assert (found["entry"], found["tensors"]) == ("teacher", len(state) + 1)
    result = cli("inspect", "trained", "--entry", "teacher")
    assert (result.code, result.err) == (
        2,
        "error: --entry teacher is about a checkpoint, which trained is not: leave it out\n",
    )
