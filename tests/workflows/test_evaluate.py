"""`hiresvit eval` as a workflow: pictures from the seed and from a folder, several sides, and what interrupts them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hiresvit.data.scenes import Scenes, sample_images
from hiresvit.errors import ArtefactError, HiresvitError, MissingDependency, UsageError
from hiresvit.evaluation.protocol import answerer
from hiresvit.files import sha256_file
from hiresvit.runtime.runner import About, Runner
from hiresvit.spec import ModelSpec, PreprocessSpec, TensorSpec
from hiresvit.workflows import evaluate as module
from hiresvit.workflows.evaluate import EvalSettings, Side, evaluate_sources
from hiresvit.workflows.open import Source, Unopened, open_source

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


def values(source: Source, dataset: str, **options: Any) -> dict[str, float]:
    """What a single side is measured at."""
    [side] = evaluate_sources([source], EvalSettings(dataset, **options)).document["accuracy"]["sides"]
    return {name: found["value"] for name, found in side["metrics"].items()}


def test_scenes_on_a_disk_are_the_scenes(nano: Source, written: Path) -> None:
    drawn = evaluate_sources([nano], EvalSettings("scenes", limit=8)).document["accuracy"]
    read = evaluate_sources([nano], EvalSettings("folder", written)).document["accuracy"]
    assert drawn["sides"][0]["metrics"]["miou"]["value"] > 70, "75 % measured: the nano knows them at half its size"
    assert read["sides"] == drawn["sides"]
    assert read["dataset"] == {"name": str(written), "pictures": 8, "ignore": 255}
    assert (read["task"], read["images"], read["complete"]) == ("segment", 8, True)
    [side] = read["sides"]
    assert (side["name"], side["failure"], side["against"]) == ("hrvit_nano (PyTorch)", None, None)
    assert side["origin"]["sha256"] == sha256_file(WEIGHTS)
    assert [row["picture"] for row in read["worst"]] == [f"images/drawn/{row['index']}.png" for row in drawn["worst"]]


def test_the_first_few_and_progress(nano: Source, written: Path) -> None:
    told: list[tuple[str, float | None]] = []
    what = EvalSettings("folder", written, limit=2)
    found = evaluate_sources([nano], what, on_step=lambda *step: told.append(step)).document["accuracy"]
    assert {n: one["value"] for n, one in found["sides"][0]["metrics"].items()} == values(nano, "scenes", limit=2)
    assert told == [("evaluate", 0.5), ("evaluate", 1.0)]


def test_a_swapped_label_is_seen(nano: Source, written: Path, tmp_path: Path) -> None:
    """What the folder says counts: with two classes exchanged in one picture the mean is another."""
    target = Path(shutil.copytree(written, tmp_path / "set"))
    one = target / "labels" / "drawn" / "0.png"
    labels = np.array(Image.open(one))
    Image.fromarray(np.where(labels == 0, 10, labels).astype(np.uint8)).save(one)
    assert values(nano, "folder", folder=target)["miou"] < values(nano, "scenes", limit=8)["miou"] - 1


def test_classes_as_folders(tmp_path: Path) -> None:
    classes = [{"index": 0, "name": "first"}, {"index": 999, "name": "last"}]
    (tmp_path / "classes.json").write_text(json.dumps({"task": "classify", "classes": classes}))
    for index, image in enumerate(sample_images(3, (40, 50))):
        path = tmp_path / "images" / ("first", "last", "last")[index] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    source = open_source("mixformer_b0", imgsz=(64, 64), threads=1)
    with source.runner:
        what = EvalSettings("folder", tmp_path, draw=tmp_path / "drawn", worst=1)
        found = evaluate_sources([source, source], what).document["accuracy"]
    assert (found["task"], found["images"]) == ("classify", 3)
    one, other = found["sides"]
    assert 0 <= one["metrics"]["top1"]["value"] <= one["metrics"]["top5"]["value"] <= 100
    assert set(one["metrics"]) == {"top1", "top5"}
    assert (other["name"], other["against"]["agreement"]) == ("mixformer_b0 (PyTorch) (2)", 1.0)
    with Image.open(found["worst"][0]["image"]) as drawn:
        assert drawn.width >= 400


def test_what_is_refused(nano: Source, written: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="anything does not say what its answers mean"):
        values(Source(nano.runner, None, "anything"), "scenes")
    with pytest.raises(UsageError, match="no data set is called kitti: there is scenes, folder"):
        values(nano, "kitti")
    (tmp_path / "classes.json").write_text('{"task": "segment", "classes": [{"index": 19, "name": "sea"}]}')
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match=r"hrvit_nano answers classes 0 to 18, .* has class 19 \(sea\)"):
        values(nano, "folder", folder=tmp_path)
    with pytest.raises(HiresvitError, match="nowhere is no folder"):
        values(nano, "folder", folder=written / "nowhere")


# Several sides, on a network that is a table: every pixel's class is its red value.


ABOUT = About("reads", "1", "CPU")


@dataclass
class Reads(Runner):
    """Answers with the red value of each pixel, shifted to the right, and fails or is interrupted at a picture."""

    shift: int = 0
    fails: dict[int, BaseException] = field(default_factory=dict)
    calls: int = 0
    inputs: tuple[TensorSpec, ...] = (TensorSpec("image", "float32", (1, 3, 16, 16)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("logits", "float32", (1, 4, 16, 16)),)
    about: About = ABOUT

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        if error := self.fails.pop(self.calls - 1, None):
            raise error
        red = np.roll(np.round(feeds["image"][0, 0] * 255).astype(int), self.shift, 1)
        return {"logits": np.moveaxis(np.eye(4, dtype=np.float32)[red], -1, 0)[None]}

    def close(self) -> None: ...


SPEC = ModelSpec("hrvit_b1", "hrvit", "segment", (16, 16), 4, PreprocessSpec(mean=(0, 0, 0), std=(1, 1, 1)))


def reading(name: str, **options: Any) -> Source:
    return Source(Reads(**options), SPEC, name)


def calls(side: Side) -> int:
    assert isinstance(side, Source)
    assert isinstance(side.runner, Reads)
    return side.runner.calls


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Six pictures of four classes; in the last two the third class has wrong colours."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "squares" / part).mkdir(parents=True)
    for number in range(6):
        labels = np.kron(rng.integers(0, 4, (4, 4)), np.ones((4, 4))).astype(np.uint8)
        picture = np.stack([labels, labels, labels], 2)
        if number >= 4:
            picture[labels == 2] = 1
        Image.fromarray(labels).save(tmp_path / "squares" / "labels" / f"{number}.png")
        Image.fromarray(picture).save(tmp_path / "squares" / "images" / f"{number}.png")
    classes = [{"index": index, "name": f"c{index}"} for index in range(4)]
    (tmp_path / "squares" / "classes.json").write_text(json.dumps({"task": "segment", "classes": classes}))
    return tmp_path / "squares"


def test_threads_are_those_that_were_asked_for(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def asked(*given: Any, threads: int | None) -> Any:
        seen.append(threads)
        return answerer(*given, threads=threads)

    monkeypatch.setattr(module, "answerer", asked)
    evaluate_sources([reading("a")], EvalSettings("folder", squares, threads=1, worst=0))
    assert seen == [1]


def test_sides_beside_the_first(squares: Path, tmp_path: Path) -> None:
    sides = [reading("a"), reading("b", shift=1), reading("a")]
    what = EvalSettings("folder", squares, output=tmp_path / "out" / "it.json")
    found = evaluate_sources(sides, what)
    assert (found.failure, found.notes) == (None, ())
    first, other, same = found.document["accuracy"]["sides"]
    assert [side["name"] for side in (first, other, same)] == ["a", "b", "a (3)"]
    assert first["against"] is None
    assert same["metrics"] == first["metrics"]
    assert (same["against"]["agreement"], same["against"]["keeps"]) == (1.0, "99.9 %")
    assert same["against"]["metrics"]["miou"] == {"difference": 0, "low": 0, "high": 0}
    assert other["against"]["keeps"] == "less than 99 %"
    miou = other["against"]["metrics"]["miou"]
    assert miou["low"] <= miou["difference"] == other["metrics"]["miou"]["value"] - first["metrics"]["miou"]["value"]
    assert miou["difference"] < miou["high"] < 0
    labels = [np.array(Image.open(squares / "labels" / f"{n}.png")) for n in range(6)]
    reds = [np.array(Image.open(squares / "images" / f"{n}.png"))[..., 0] for n in range(6)]
    assert other["against"]["agreement"] == np.mean([np.roll(red, 1, 1) == red for red in reds])
    assert first["metrics"]["pixel_accuracy"]["value"] == pytest.approx(
        100 * np.mean(np.stack(reds) == np.stack(labels)), abs=1e-12
    )
    assert [calls(side) for side in sides] == [6 + 3] * 3, "the three worst once more, to be drawn"
    worst = found.document["accuracy"]["worst"]
    shares = [float(np.mean(np.roll(red, 1, 1) == red)) for red in reds]
    assert [row["agreement"] for row in worst] == sorted(shares)[:3]
    assert [row["image"] for row in worst] == [f"it-worst-{n}.png" for n in (1, 2, 3)]
    for row in worst:
        with Image.open(tmp_path / "out" / row["image"]) as drawn:
            assert drawn.width > 800, "two panels beside each other"


def test_a_side_that_fails_leaves_the_others(squares: Path) -> None:
    broken = {2: ArtefactError("the GPU fell off the bus")}
    sides: list[Side] = [reading("a"), reading("b", fails=broken), Unopened("c", MissingDependency("no c here"))]
    found = evaluate_sources(sides, EvalSettings("folder", squares))
    first, second, third = found.document["accuracy"]["sides"]
    assert first["metrics"]["miou"]["value"] > 50
    assert second["failure"] == {"message": "the GPU fell off the bus", "exit_code": 7}
    assert third["failure"] == {"message": "no c here", "exit_code": 6}
    assert (second["metrics"], second["classes"], second["against"]) == ({}, [], None)
    assert isinstance(found.failure, HiresvitError)
    assert (found.failure.exit_code, found.document["accuracy"]["complete"]) == (7, True)
    assert str(found.failure) == "b has no numbers: the GPU fell off the bus; c has no numbers: no c here"
    assert calls(sides[1]) == 3


def test_without_the_first_nothing_stands_beside_it(squares: Path) -> None:
    sides: list[Side] = [Unopened("gone", MissingDependency("no such runner")), reading("a"), reading("b", shift=1)]
    found = evaluate_sources(sides, EvalSettings("folder", squares)).document["accuracy"]
    assert [side["against"] for side in found["sides"]] == [None, None, None]
    assert [row["agreement"] for row in found["worst"]] == [None] * 3
    assert found["sides"][2]["metrics"]["miou"]["value"] < found["sides"][1]["metrics"]["miou"]["value"]


def test_the_last_side_that_fails_ends_it(squares: Path) -> None:
    with pytest.raises(ArtefactError, match="gone"):
        evaluate_sources([reading("a", fails={1: ArtefactError("gone")})], EvalSettings("folder", squares))


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_run_is_kept_and_goes_on(squares: Path, tmp_path: Path, at: int) -> None:
    whole = evaluate_sources([reading("a"), reading("b", shift=1)], EvalSettings("folder", squares, worst=0)).document
    what = EvalSettings("folder", squares, worst=0, output=tmp_path / "it.json")
    sides = [reading("a"), reading("b", shift=1, fails={at: KeyboardInterrupt()})]
    found = evaluate_sources(sides, what)
    assert isinstance(found.failure, KeyboardInterrupt)
    partial = found.document["accuracy"]
    assert (partial["images"], partial["complete"], partial["dataset"]["pictures"]) == (at, False, 6)
    limited = evaluate_sources(
        [reading("a"), reading("b", shift=1)], EvalSettings("folder", squares, limit=at, worst=0)
    )
    assert partial["sides"] == limited.document["accuracy"]["sides"]
    assert what.state is not None
    assert what.state.exists()
    sides = [reading("a"), reading("b", shift=1)]
    found = evaluate_sources(sides, what)
    assert found.document == whole
    assert [calls(side) for side in sides] == [6 - at] * 2, "and not from the start"
    assert f"{at} of 6 pictures were measured before" in found.notes[0]


def test_nothing_to_keep_is_an_interruption(squares: Path, tmp_path: Path) -> None:
    what = EvalSettings("folder", squares, output=tmp_path / "it.json")
    with pytest.raises(KeyboardInterrupt):
        evaluate_sources([reading("a", fails={0: KeyboardInterrupt()})], what)
    assert not list(tmp_path.glob(".*"))


def test_another_evaluation_begins_anew_and_says_so(squares: Path, tmp_path: Path) -> None:
    what = EvalSettings("folder", squares, worst=0, output=tmp_path / "it.json")
    evaluate_sources([reading("a", fails={3: KeyboardInterrupt()})], what)
    assert what.state is not None
    kept = what.state.read_bytes()
    for side, other in (
        (reading("b"), what),
        (reading("a"), replace(what, options="--ema")),
        (reading("a"), replace(what, limit=5)),
        (Source(Reads(), SPEC, "a", origin={"sha256": "other weights"}), what),
    ):
        found = evaluate_sources([side], other)
        assert calls(side) == found.document["accuracy"]["images"] >= 5
        assert "is of another evaluation, or damaged: this one begins anew" in found.notes[0]
        what.state.write_bytes(kept)
    what.state.write_bytes(b"PK")
    assert "begins anew" in evaluate_sources([reading("a")], what).notes[0]


def test_what_was_counted_and_has_changed_begins_anew(squares: Path, tmp_path: Path) -> None:
    what = EvalSettings("folder", squares, worst=0, output=tmp_path / "it.json")
    evaluate_sources([reading("a", fails={3: KeyboardInterrupt()})], what)
    assert what.state is not None
    kept = what.state.read_bytes()
    for name, measured in (("images/5.png", 3), ("labels/1.png", 6), ("images/0.png", 6)):
        before = (squares / name).stat().st_mtime_ns
        os.utime(squares / name, ns=(1, 1))
        side = reading("a")
        found = evaluate_sources([side], what)
        assert (calls(side), any("begins anew" in note for note in found.notes)) == (measured, measured == 6), name
        os.utime(squares / name, ns=(before, before))
        what.state.write_bytes(kept)


def test_a_corrupt_picture_is_named_and_not_passed_over(squares: Path, tmp_path: Path) -> None:
    picture = squares / "images" / "3.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:60])
    what = EvalSettings("folder", squares, worst=0, output=tmp_path / "it.json")
    with pytest.raises(HiresvitError, match=r"3\.png.*\(4 of 6\) is not passed over, the number would be that of"):
        evaluate_sources([reading("a")], what)
    picture.write_bytes(whole)
    side = reading("a")
    assert evaluate_sources([side], what).document["accuracy"]["complete"]
    assert calls(side) == 3, "repaired, it goes on"


def test_a_place_that_cannot_be_written_is_found_out_first(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    side = reading("a")
    with pytest.raises(HiresvitError, match="cannot write"):
        evaluate_sources([side], EvalSettings("folder", squares, output=tmp_path / "file" / "it.json"))
    assert calls(side) == 0
