"""`hiresvit run` on more than a file: folders, patterns, pipes; overlays with legends, labels, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, environment, hiresvit_command
from PIL import Image

from hiresvit.data.image import load_image
from hiresvit.data.pairs import load_labels
from hiresvit.data.scenes import sample_image

NAMES = ("a.jpg", "b.png", "in/a.jpg", "in/c.webp")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures and what lies in one; the working directory is another one."""
    for seed, name in enumerate(NAMES):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample_image(seed, 96, 128 + 32 * seed)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "photos"


def written() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_a_folder(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    result = cli("run", tiny_bundle, photos, "--labels", "labels")
    assert result.code == 0, result.err
    assert "note: 1 hidden files" in result.err
    assert "wrote 4 overlays to photos-segment: " in result.out
    overlays = {f"photos-segment/{name.rpartition('.')[0]}-segment.png" for name in NAMES}
    labels = {f"labels/{name.rpartition('.')[0]}.png" for name in NAMES}
    assert written() == overlays | labels
    for seed, name in enumerate(NAMES):
        with Image.open(f"labels/{name.rpartition('.')[0]}.png") as picture:
            assert (picture.mode, picture.size) == ("P", (128 + 32 * seed, 96))
    again = cli("run", tiny_bundle, "..", "-o", "photos-segment", "--json")
    answered = [Path(row["image"]).name for row in json.loads(again.out)["pictures"]]
    assert sorted(answered) == sorted(Path(name).name for name in NAMES), "neither its overlays nor its labels"


def test_labels_are_what_the_shares_are_of(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    document = json.loads(cli("run", tiny_bundle, photos / "a.jpg", "--labels", "l.png", "--json").out)
    assert document["label_map"] == "l.png"
    assert document["pictures"] == [{key: document[key] for key in ("image", "output", "bytes", "label_map", "shares")}]
    labels = load_labels(Path("l.png"))
    assert labels.shape == load_image(photos / "a.jpg").shape[:2]
    counted = np.bincount(labels.ravel()) / labels.size
    assert {row["class"]: row["share"] for row in document["shares"]} == {
        k: share for k, share in enumerate(counted.tolist()) if share
    }


def test_a_pattern_a_damaged_picture_and_the_others(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    (photos / "damaged.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    typed = (f"{photos}/*.*g", f"{photos}/gone.jpg")
    result = cli("run", tiny_bundle, *typed, "--json")
    assert result.code == 1
    document = json.loads(result.out)
    rows = {Path(row["image"]).name: row for row in document["pictures"]}
    assert set(rows) == {"a.jpg", "b.png", "damaged.jpg", "gone.jpg"}
    assert [name for name, row in rows.items() if "error" in row] == ["damaged.jpg", "gone.jpg"]
    assert "2 of 4 pictures have no answer, the others do: " in document["error"]["message"]
    assert written() == {"segment/a-segment.png", "segment/b-segment.png"}
    assert result.err.count("/damaged.jpg: not a readable image") == 2, "as a note and at the end"
    assert result.err.count("/gone.jpg: no such file") == 1
    assert "no such file" in cli("run", tiny_bundle, *typed).err


def test_classes_of_many_pictures(cli: Cli, photos: Path) -> None:
    typed = ("run", "hrvit_b1", photos, "--task", "classify", "--imgsz", "32", "--num-classes", "9")
    document = json.loads(cli(*typed, "--json").out)
    assert [len(row["top"]) for row in document["pictures"]] == [5] * 4
    assert written() == set()
    assert cli(*typed).out.count(" %") == 4
    assert "--labels is for the labels of a segmentation" in cli(*typed, "--labels", "l").err


def test_stdin(tiny_bundle: Path, photos: Path) -> None:
    done = subprocess.run(
        hiresvit_command("run", tiny_bundle, "-", "--json"),
        input=(photos / "a.jpg").read_bytes(),
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert written() == {"stdin-segment.png"}
    assert json.loads(done.stdout)["image"] == "-"


def test_what_cannot_be_served(cli: Cli, tiny_bundle: Path, photos: Path) -> None:
    for typed, code, said in (
        ("https://host/a.jpg", 2, "https://host/a.jpg is an address on the network: download it first"),
        ("../photos -o ../photos", 2, "this is where the pictures are; choose another folder"),
        ("../photos/a.jpg ../photos/b.png -o x.png", 2, "there are several pictures, give a folder"),
        ("../photos/*.tif", 1, "no file matches this pattern"),
        (".", 1, "no pictures in this folder"),
        ("../photos/._a.jpg", 1, "._a.jpg: not a readable image"),
    ):
        result = cli("run", tiny_bundle, *typed.split())
        assert (result.code, result.err.count("\n")) == (code, 1), typed
        assert said in result.err
        assert written() == set()
