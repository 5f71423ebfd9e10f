"""`hiresvit eval` as a workflow: the same pictures from the seed and from a folder have the same accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresvit.data.scenes import Scenes, sample_images
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.workflows.evaluate import evaluate_source
from hiresvit.workflows.open import Source, open_source

WEIGHTS = Path(__file__).parents[2] / "examples" / "hrvit_nano.safetensors"
SIZE = (128, 128)


@pytest.fixture(scope="module")
def nano() -> Iterator[Source]:
    source = open_source("hrvit_nano", weights=WEIGHTS, imgsz=SIZE, threads=1)
    with source.runner:
        yield source


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes, the labels as palette PNGs in the scenes' colours."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images" / "drawn").mkdir(parents=True)
    (folder / "labels" / "drawn").mkdir(parents=True)
    scenes = Scenes(8, SIZE)
    palette = np.zeros((256, 3), np.uint8)
    for index, colour in scenes.colours.items():
        palette[index] = colour
    for number in range(8):
        sample = scenes[number]
        labels = Image.fromarray(np.asarray(sample.labels))
        labels.putpalette(palette.tobytes())
        assert labels.mode == "P"
        labels.save(folder / "labels" / "drawn" / f"{number}.png")
        Image.fromarray(sample.image).save(folder / "images" / "drawn" / f"{number}.png")
    classes = [
        {"index": i, "name": n, "colour": "#{:02x}{:02x}{:02x}".format(*scenes.colours[i])}
        for i, n in scenes.classes.items()
    ]
    (folder / "classes.json").write_text(json.dumps({"task": "segment", "ignore": 255, "classes": classes}))
    return folder


def test_scenes_on_a_disk_are_the_scenes(nano: Source, written: Path) -> None:
    drawn = evaluate_source(nano, "scenes", limit=8)
    read = evaluate_source(nano, "folder", folder=written)
    assert drawn["miou"] > 70, "75 % measured: the nano knows them at half its size"
    assert read | {"dataset": "scenes"} == drawn
    assert read["dataset"] == str(written)
    assert (read["source"], read["images"]) == ("hrvit_nano (PyTorch)", 8)


def test_the_first_few_and_progress(nano: Source, written: Path) -> None:
    told: list[tuple[str, float | None]] = []
    found = evaluate_source(nano, "folder", folder=written, limit=2, on_step=lambda *step: told.append(step))
    assert found | {"dataset": "scenes"} == evaluate_source(nano, "scenes", limit=2)
    assert told == [("evaluate", 0.5), ("evaluate", 1.0)]


def test_a_swapped_label_is_seen(nano: Source, written: Path, tmp_path: Path) -> None:
    """What the folder says counts: with two classes exchanged in one picture the mean is another."""
    target = tmp_path / "set"
    for path in sorted(written.rglob("*")):
        if path.is_file():
            (target / path.relative_to(written)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(written)).write_bytes(path.read_bytes())
    one = target / "labels" / "drawn" / "0.png"
    labels = np.array(Image.open(one))
    Image.fromarray(np.where(labels == 0, 10, labels).astype(np.uint8)).save(one)
    assert evaluate_source(nano, "folder", folder=target)["miou"] < evaluate_source(nano, "scenes", limit=8)["miou"] - 1


def test_classes_as_folders(tmp_path: Path) -> None:
    classes = [{"index": 0, "name": "first"}, {"index": 999, "name": "last"}]
    (tmp_path / "classes.json").write_text(json.dumps({"task": "classify", "classes": classes}))
    for index, image in enumerate(sample_images(3, (40, 50))):
        path = tmp_path / "images" / ("first", "last", "last")[index] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    source = open_source("mixformer_b0", imgsz=(64, 64), threads=1)
    with source.runner:
        found = evaluate_source(source, "folder", folder=tmp_path)
    assert (found["task"], found["images"]) == ("classify", 3)
    assert 0 <= found["top1"] <= found["top5"] <= 100
    assert "miou" not in found


def test_what_is_refused(nano: Source, written: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="anything does not say what its answers mean"):
        evaluate_source(Source(nano.runner, None, "anything"), "scenes")
    with pytest.raises(UsageError, match="no data set is called cityscapes: there is scenes, folder"):
        evaluate_source(nano, "cityscapes")
    (tmp_path / "classes.json").write_text('{"task": "segment", "classes": [{"index": 19, "name": "sea"}]}')
    with pytest.raises(UsageError, match=r"hrvit_nano answers classes 0 to 18, .* has class 19 \(sea\)"):
        evaluate_source(nano, "folder", folder=tmp_path)
    with pytest.raises(HiresvitError, match="nowhere is no folder"):
        evaluate_source(nano, "folder", folder=written / "nowhere")
