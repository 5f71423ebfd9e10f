"""Lists as editors, shells and trainers write them: each line's picture is found, or the line is counted."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiresvit.data.listing import read_list
from hiresvit.data.pictures import open_pictures
from hiresvit.errors import HiresvitError, UsageError

NAMES = ("a.jpg", "b c.png", "in/d.jpg", "straße é.png", "#1.jpg", "e,f.jpg")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures beside the lists; the working directory and the home are two other folders."""
    for seed, name in enumerate((*(f"lists/{name}" for name in NAMES), "here/w.jpg", "home/h.jpg")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "lists"


def named(photos: Path, text: str | bytes, name: str = "list.txt") -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    (photos / name).write_bytes(data)
    return [os.path.relpath(path, photos) for path in read_list(photos / name).paths]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\n\r\n"])
def test_encodings_and_ends_of_lines(encoding: str, end: str, photos: Path) -> None:
    text = end.join(NAMES) + end
    assert sorted(named(photos, text.encode(encoding))) == sorted(NAMES)


def test_a_name_that_is_no_utf_8(photos: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.jpg")
    (photos / "a.jpg").rename(photos / raw)
    assert named(photos, b"caf\xe9.jpg\n") == [raw]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg 3", "a.jpg"),
        ("b c.png 3", "b c.png"),
        ("a.jpg\t3", "a.jpg"),
        ("a.jpg,3", "a.jpg"),
        ("e,f.jpg,3", "e,f.jpg"),
        ("a.jpg;cat;0.5", "a.jpg"),
        ("a.jpg b c.png", "a.jpg"),
        ("3 b c.png", "b c.png"),
        ("17,in/d.jpg,cat", "in/d.jpg"),
        ("  a.jpg  ", "a.jpg"),
        ('"b c.png"', "b c.png"),
        ("'b c.png'", "b c.png"),
        ('"b c.png",3', "b c.png"),
        ("file 'a.jpg'", "a.jpg"),
        ("b\\ c.png", "b c.png"),
        ("in\\d.jpg", "in/d.jpg"),
        ("./in/../a.jpg", "in/../a.jpg"),
        ("a.jpg  # at night", "a.jpg"),
        ("#1.jpg", "#1.jpg"),
        ("w.jpg", "../here/w.jpg"),
        ("~/h.jpg", "../home/h.jpg"),
        ('"~/h.jpg" 3', "../home/h.jpg"),
        ("in", "in/d.jpg"),
    ],
)
def test_what_a_line_means(line: str, expected: str, photos: Path) -> None:
    found = named(photos, f"# a comment\n\n{line}\n{line}\n")
    assert [os.path.normpath(name) for name in found] == [os.path.normpath(expected)]
    assert read_list(photos / "list.txt").left_out == {}


def test_absolute_paths_and_addresses_of_files(photos: Path) -> None:
    assert named(photos, f"{photos}/a.jpg\nfile://{photos}/b%20c.png\n") == ["a.jpg", "b c.png"]


def test_beside_the_list_comes_first(photos: Path) -> None:
    (photos.parent / "here" / "a.jpg").write_bytes(b"")
    assert named(photos, "a.jpg\n") == ["a.jpg"]


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.lst", "list.TXT"])
def test_tables_with_a_heading(name: str, photos: Path) -> None:
    assert named(photos, "filename,label\na.jpg,3\nb c.png,4\n", name) == ["a.jpg", "b c.png"]
    assert read_list(photos / name).notes() == ["1 lines that name no file, the first is 'filename,label'"]
    assert len(open_pictures(str(photos / name), (8, 8), 9)) == 2


def test_what_is_left_out_is_in_the_report(photos: Path) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    lines = ["a.jpg", "b c.png", "pipe.jpg", "zero.jpg", "gone.jpg", "https://host/x.jpg", "# nothing"]
    (photos / "list.txt").write_text("\n".join(lines))
    found = open_pictures(str(photos / "list.txt"), (8, 8), 9)
    assert len(found) == 2
    assert sorted(found.skipped) == [
        "1 addresses on the network: download them first, the first is 'https://host/x.jpg'",
        "1 lines that name no file, the first is 'gone.jpg'",
        f"2 pipes or devices, the first is {photos / 'pipe.jpg'}",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the list is empty; write one path per line"),
        (b"\xef\xbb\xbf\r\n\r\n", "the list is empty"),
        (b"# only\n", "none of 1 lines names a picture, beside the list or in the working directory"),
        (b"x.jpg\ny.jpg\n", "none of 2 lines names a picture, .*left out: 2 lines that name no file, the first is"),
        (b"a.jpg\nx.jpg\ny.jpg\n", "of 3 lines 2 or more name no file, .*the first is 'x.jpg'"),
        (b"a\0b", "not a list of paths"),
        (bytes(range(256)) * 8, "not a list of paths"),
        (b"\xff\xfea", "not a list of paths"),
        (b"a" * 5000 + b"\n", "none of 1 lines"),
        (b" ".join([b"x"] * 100_000), "none of 1 lines"),
    ],
)
def test_what_is_no_list(data: bytes, said: str, photos: Path) -> None:
    (photos / "list.txt").write_bytes(data)
    with pytest.raises(HiresvitError, match=said) as caught:
        open_pictures(str(photos / "list.txt"), (8, 8), 9)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_pipes_and_devices_as_a_source_do_not_block(photos: Path) -> None:
    os.mkfifo(photos / "pipe.txt")
    (photos / "zero.txt").symlink_to("/dev/zero")
    (photos / "zero.npz").symlink_to("/dev/zero")
    for name in ("pipe.txt", "zero.txt", "zero.npz"):
        with pytest.raises(UsageError, match=re.escape(f"{name} is a pipe or a device")):
            open_pictures(str(photos / name), (8, 8), 2)


def test_sources_as_they_are_typed(photos: Path) -> None:
    assert len(open_pictures("~", (8, 8), 9)) == 1
    assert len(open_pictures(f"file://{photos}", (8, 8), 9)) == len(NAMES)
    with pytest.raises(UsageError, match=r"https://host/list.txt is an address on the network: download it first"):
        open_pictures("https://host/list.txt", (8, 8), 2)
    with pytest.raises(HiresvitError, match="cannot read"):
        open_pictures("a\0b", (8, 8), 2)


def test_an_archive_that_unpacks_to_far_more_is_refused(photos: Path) -> None:
    np.savez_compressed(photos / "a.npz", images=np.zeros((1500, 300, 300, 3), np.uint8))
    with pytest.raises(HiresvitError, match=r"bytes that unpack to 405000.* are no pictures"):
        open_pictures(str(photos / "a.npz"), (8, 8), 2)
