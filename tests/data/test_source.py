"""What of a folder is a photo, and what else lies in it: each left out with its reason, none of it in the way."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresvit.data.folder import Folder
from hiresvit.data.pictures import open_pictures
from hiresvit.data.scenes import sample_image
from hiresvit.data.source import find_files, find_in_folder, is_label_map
from hiresvit.errors import HiresvitError, UsageError

SIZE = (24, 48)


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    return path


def label_map(path: Path, kind: str = "L") -> Path:
    """Rectangles of classes, as grey numbers, with a palette, in colours, or as 16 bits of instances."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.kron(np.array([[0, 7, 8], [11, 255, 0]], np.uint8), np.ones((12, 16), np.uint8))
    if kind == "P":
        picture = Image.fromarray(numbers % 20).copy()
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette(bytes(range(60)))
    elif kind == "RGB":
        picture = Image.fromarray(np.stack([numbers, 3 * numbers, 255 - numbers], -1))
    elif kind == "I":
        picture = Image.fromarray(numbers.astype(np.uint16) * 1000)
    else:
        picture = Image.fromarray(numbers)
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("pictures", "maps"),
    [
        pytest.param(
            ["leftImg8bit/val/ulm/ulm_0_leftImg8bit.png"],
            [
                ("gtFine/val/ulm/ulm_0_gtFine_labelIds.png", "L"),
                ("gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png", "L"),
                ("gtFine/val/ulm/ulm_0_gtFine_instanceIds.png", "I"),
                ("gtFine/val/ulm/ulm_0_gtFine_color.png", "RGB"),
                ("disparity/val/ulm/ulm_0_disparity.png", "I"),
            ],
            id="Cityscapes",
        ),
        pytest.param(
            ["images/training/ADE_train_1.jpg"], [("annotations/training/ADE_train_1.png", "L")], id="ADE20K of 2016"
        ),
        pytest.param(
            ["ADE/bed/ADE_1.jpg"],
            [("ADE/bed/ADE_1_seg.png", "RGB"), ("ADE/bed/ADE_1_parts_1.png", "RGB")],
            id="ADE20K whole",
        ),
        pytest.param(
            ["JPEGImages/a.jpg"],
            [("SegmentationClass/a.png", "P"), ("SegmentationObject/a.png", "P"), ("SegmentationClassAug/a.png", "L")],
            id="VOC",
        ),
        pytest.param(["train2017/1.jpg"], [("stuffthingmaps/train2017/1.png", "L")], id="COCO-Stuff"),
        pytest.param(["img_dir/a.png"], [("ann_dir/a.png", "L")], id="mmseg"),
        pytest.param(["DUTS-TR-Image/a.jpg"], [("DUTS-TR-Mask/a.png", "L")], id="DUTS"),
        pytest.param(["images/a.jpg"], [("labels/a.png", "L")], id="ours"),
        pytest.param(["a.png"], [("a_mask.png", "L"), ("b.png", "P")], id="beside"),
    ],
)
def test_label_maps_are_left_out(pictures: list[str], maps: list[tuple[str, str]], tmp_path: Path) -> None:
    wanted = [photo(tmp_path / name, seed) for seed, name in enumerate(pictures)]
    for name, kind in maps:
        label_map(tmp_path / name, kind)
    found = open_pictures(str(tmp_path), SIZE, 99)
    assert sorted(found.names) == sorted(map(str, wanted))
    assert sum(int(said.split()[0]) for said in found.skipped) == len(maps)
    assert all("label maps" in said for said in found.skipped)


def test_photos_in_folders_and_files_that_are_called_so_are_taken(tmp_path: Path) -> None:
    names = ("labels/a.png", "mask/b.png", "c_color.png", "annotations/d.jpg", "depth/e.png")
    wanted = [photo(tmp_path / name, seed) for seed, name in enumerate(names)]
    assert find_in_folder(tmp_path).paths == sorted(wanted)


def test_pictures_without_a_hint_are_no_label_maps(tmp_path: Path) -> None:
    Image.fromarray(sample_image(3, 64, 96)).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(sample_image(3, 64, 96)).quantize(128).save(tmp_path / "palette.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "flat.png")
    Image.fromarray(np.kron(np.eye(8) > 0, np.ones((9, 9))) > 0).save(tmp_path / "page.png")
    assert not any(is_label_map(path, hinted=False) for path in tmp_path.iterdir())


def test_a_folder_of_label_maps_alone_says_so(tmp_path: Path) -> None:
    for index in range(3):
        label_map(tmp_path / f"{index}.png")
    with pytest.raises(HiresvitError, match="no pictures to calibrate with; left out: 3 label maps by what is in them"):
        open_pictures(str(tmp_path), SIZE, 2)
    label_map(tmp_path / "more" / "labels" / "a.png")
    with pytest.raises(HiresvitError, match=r"no pictures in this folder; .*left out: 1 label maps by their names"):
        find_in_folder(tmp_path / "more")


def socket_at(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's whole name has to be short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("._a.jpg", lambda p: p.write_bytes(b"\0\5\x16\7"), "hidden files (macOS keeps ._NAME beside NAME)"),
        (".a.jpg", photo, "hidden files"),
        (".ipynb_checkpoints/a-checkpoint.jpg", photo, "hidden folders or a system's own"),
        (".thumbnails/a.jpg", photo, "hidden folders or a system's own"),
        ("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", photo, "hidden folders or a system's own"),
        ("__MACOSX/._a.jpg", photo, "hidden folders or a system's own"),
        ("$RECYCLE.BIN/a.jpg", photo, "hidden folders or a system's own"),
        ("more/thumbnails/a.jpg", photo, "thumbnails"),
        ("pipe.jpg", os.mkfifo, "pipes or devices"),
        ("socket.jpg", socket_at, "pipes or devices"),
        ("device.png", lambda p: p.symlink_to("/dev/zero"), "pipes or devices"),
        ("gone.jpg", lambda p: p.symlink_to("nowhere.jpg"), "links to nothing"),
        ("itself.jpg", lambda p: p.symlink_to(p.name), "links to nothing"),
        ("loop", lambda p: p.symlink_to("."), "links to folders that are in it anyway"),
        ("raw.DNG", lambda p: p.write_bytes(b"II*\0"), ".dng files, which are not read here"),
        ("film.mp4", lambda p: p.write_bytes(b""), ".mp4 files, which are not read here"),
        ("notes.txt", lambda p: p.write_bytes(b""), None),
        ("Thumbs.db", lambda p: p.write_bytes(b""), None),
    ],
)
def test_what_lies_in_a_good_folder(
    name: str, make: Callable[[Path], object], reason: str | None, tmp_path: Path
) -> None:
    good = photo(tmp_path / "good.jpg")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / name)
    found = find_in_folder(tmp_path)
    assert found.paths == [good]
    notes = found.notes()
    assert len(notes) == (reason is not None)
    assert reason is None or notes[0].startswith(f"1 {reason}")


def test_linked_folders_are_searched_and_loops_end(tmp_path: Path) -> None:
    photo(tmp_path / "real" / "deep" / "a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "real")
    for name in ("x", "y"):
        (tmp_path / "real" / "deep" / name).symlink_to(tmp_path / "real")
    assert find_in_folder(tmp_path / "photos").paths == [tmp_path / "photos" / "linked" / "deep" / "a.jpg"]
    (tmp_path / "also").symlink_to(tmp_path / "photos")
    assert len(open_pictures(str(tmp_path / "also"), SIZE, 9)) == 1


def test_folders_deeper_than_python_may_recurse(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    good = photo(tmp_path / "a.jpg")
    try:
        assert find_in_folder(tmp_path).paths == [good]
    finally:  # by a program that does not recurse, as pytest's own does
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "closed" / "b.jpg")
    (tmp_path / "closed").chmod(0)
    try:
        assert find_in_folder(tmp_path).notes() == [
            f"1 folders that may not be read, the first is {tmp_path / 'closed'}"
        ]
        with pytest.raises(HiresvitError, match="closed cannot be read: Permission denied"):
            find_in_folder(tmp_path / "closed")
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_folder_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, who may read everything, sees it."""
    good = photo(tmp_path / "a.jpg")
    photo(tmp_path / "closed" / "b.jpg")
    real = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("hiresvit.data.source.os.scandir", scandir)
    found = find_in_folder(tmp_path)
    assert found.paths == [good]
    assert found.notes() == [f"1 folders that may not be read, the first is {tmp_path / 'closed'}"]
    with pytest.raises(HiresvitError, match="closed cannot be read: Permission denied"):
        find_in_folder(tmp_path / "closed")
    (tmp_path / "images").mkdir()
    photo(tmp_path / "images" / "road" / "b.jpg")
    photo(tmp_path / "images" / "closed" / "b.jpg")
    (tmp_path / "classes.json").write_text('{"task": "classify", "classes": [{"index": 0, "name": "road"}]}')
    with pytest.raises(HiresvitError, match="closed may not be read; give this user the right to"):
        len(Folder(tmp_path))


def test_a_labelled_folder_passes_over_the_same_and_follows_links(tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "road").symlink_to(tmp_path / "elsewhere")
    photo(tmp_path / "images" / ".ipynb_checkpoints" / "b.jpg")
    photo(tmp_path / "images" / "@eaDir" / "b.jpg")
    (tmp_path / "classes.json").write_text('{"task": "classify", "classes": [{"index": 0, "name": "road"}]}')
    assert Folder(tmp_path).pairs == [("images/road/a.jpg", 0)]


def test_files_folders_and_patterns_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ["a.jpg", "b [1].jpg", "in/c.jpg", "in/deep/d.png", "in/.hidden.jpg", "in/e_mask.png"]
    for seed, name in enumerate(names):
        photo(tmp_path / name, seed)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")

    def found(*typed: str) -> list[str]:
        return [str(path) for path in find_files(typed).paths]

    assert found("a.jpg", "nowhere.jpg", "a.jpg") == ["a.jpg", "nowhere.jpg"]
    assert found("in") == ["in/c.jpg", "in/deep/d.png", "in/e_mask.png"]
    assert found("*.jpg") == ["a.jpg", "b [1].jpg"]
    assert found("b [1].jpg") == ["b [1].jpg"], "a name before a pattern"
    assert found("in/**/*.png") == ["in/deep/d.png", "in/e_mask.png"]
    assert found("in/*") == ["in/c.jpg", "in/e_mask.png"]
    assert found(f"{tmp_path}/i*/c.jpg") == [f"{tmp_path}/in/c.jpg"]
    assert found("~/a.jpg") == [f"{tmp_path}/a.jpg"]
    assert found("'a.jpg'") == ["a.jpg"]
    assert found("-") == ["-"]
    with pytest.raises(HiresvitError, match=re.escape("x*.jpg: no file matches this pattern")):
        found("x*.jpg")
    with pytest.raises(UsageError, match=r"https://a/b.jpg is an address on the network"):
        found("https://a/b.jpg")
    assert found("in", "a.jpg")[-1] == "a.jpg"
    assert find_files(["in"], besides=[tmp_path / "in" / "deep"]).paths == [Path("in/c.jpg"), Path("in/e_mask.png")]
