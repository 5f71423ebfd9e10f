"""Pictures to calibrate with: the same ones each time, from every kind of source, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny import tiny_spec

from hiresvit.data.pictures import Feeds, Pictures, open_pictures
from hiresvit.data.preprocess import preprocess
from hiresvit.data.scenes import CALIBRATION, CALIBRATION_COUNT, HELD_OUT, SEARCH, sample_scene
from hiresvit.errors import HiresvitError, UsageError

SIZE = (64, 96)


def folder_of(path: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    """A folder of different pictures, some of them in a folder in it."""
    generator = np.random.default_rng(0)
    (path / "more").mkdir(parents=True)
    for index in range(count):
        picture = Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8))
        picture.save((path / "more" if index % 3 == 0 else path) / f"{index:03}.{'png' if index % 2 else 'JPG'}", "PNG")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "photos", 20)


def test_the_choice_is_the_same_each_time(photos: Path) -> None:
    one, again, other = (open_pictures(str(photos), SIZE, 6, seed=seed) for seed in (0, 0, 1))
    assert len(one) == 6
    assert (one.names, one.digest) == (again.names, again.digest)
    assert one.names != other.names
    assert len(set(one.names)) == 6
    more = open_pictures(str(photos), SIZE, 12)
    assert more.names[:6] == one.names, "asking for more keeps the first"
    assert len(open_pictures(str(photos), SIZE, 99)) == 20, "all there are"


def test_a_changed_picture_changes_the_digest(photos: Path) -> None:
    before = open_pictures(str(photos), SIZE, 20).digest
    picture = np.array(Image.open(photos / "001.png"))
    picture[0, 0] ^= 1
    Image.fromarray(picture).save(photos / "001.png")
    assert open_pictures(str(photos), SIZE, 20).digest != before


def test_every_source_gives_the_same_pictures(photos: Path, tmp_path: Path) -> None:
    whole = open_pictures(str(photos), SIZE, 20)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"photos/{Path(name).relative_to(photos)}\n\n" for name in whole.names))
    np.savez(tmp_path / "all.npz", images=np.stack([whole[i] for i in range(20)]))
    for source in (listed, tmp_path / "all.npz"):
        found = open_pictures(str(source), SIZE, 20)
        assert sorted(found.digests) == sorted(whole.digests)


def test_scenes_are_neither_trained_on_nor_measured_on() -> None:
    found = open_pictures("scenes", (32, 48), 3)
    numbers = [int(name) for name in found.names]
    assert all(0 <= number < CALIBRATION_COUNT for number in numbers)
    assert CALIBRATION + CALIBRATION_COUNT <= SEARCH < HELD_OUT
    np.testing.assert_array_equal(found[1], sample_scene(CALIBRATION + numbers[1], 32, 48).image)


def test_parts() -> None:
    whole = open_pictures("scenes", (16, 16), 4)
    first, rest = whole.part(0, 1), whole.part(1, 4)
    assert first.names + rest.names == whole.names
    assert first.digest != rest.digest != whole.digest


def test_feeds_are_preprocessed_as_everywhere(photos: Path) -> None:
    spec = tiny_spec()
    found = open_pictures(str(photos), spec.imgsz, 2)
    feeds = Feeds(found, spec, "image")
    assert len(feeds) == 2
    np.testing.assert_array_equal(feeds[1]["image"], preprocess(found[1], spec.preprocess, spec.imgsz))


def test_a_damaged_picture_is_skipped_by_name(photos: Path) -> None:
    good = open_pictures(str(photos), SIZE, 20)
    victim = Path(good.names[3])
    victim.write_bytes(victim.read_bytes()[:200])
    found = open_pictures(str(photos), SIZE, 20)
    assert len(found) == 19
    assert found.names == tuple(name for name in good.names if name != str(victim))
    [said] = found.skipped
    assert str(victim) in said
    assert "not a readable image" in said


def test_more_than_a_twentieth_is_no_calibration_set(photos: Path) -> None:
    for index in (1, 5):
        (photos / f"{index:03}.png").write_bytes(b"\x89PNG")
    with pytest.raises(HiresvitError, match=r"2 of 20 pictures cannot be read, more than 5%.*the first: .*\.png"):
        open_pictures(str(photos), SIZE, 20)


def test_other_sizes_are_counted(tmp_path: Path) -> None:
    small = folder_of(tmp_path / "small", 4, (32, 200))
    assert open_pictures(str(small), SIZE, 9).small == 4
    assert open_pictures(str(small), (32, 200), 9).small == 0


def write(path: Path, **arrays: NDArray[Any]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "movie.mp4").write_bytes(b"")
    flat = write(tmp_path / "flat.npz", images=np.zeros((4, 8, 8), np.uint8))
    floats = write(tmp_path / "floats.npz", images=np.zeros((4, 8, 8, 3), np.float32))
    other = write(tmp_path / "other.npz", pictures=np.zeros((4, 8, 8, 3), np.uint8))
    cases: list[tuple[Path, type[HiresvitError], str]] = [
        (tmp_path / "nowhere", HiresvitError, "does not exist; give a folder of pictures"),
        (tmp_path / "empty", HiresvitError, "no pictures in this folder; looked for .jpg"),
        (tmp_path / "empty.txt", HiresvitError, "the list is empty"),
        (tmp_path / "half.npz", HiresvitError, "no array called images can be read"),
        (other, HiresvitError, "no array called images can be read"),
        (flat, HiresvitError, "images is uint8 (4, 8, 8); it must be uint8 (N, H, W, 3)"),
        (floats, UsageError, "image is float32"),
        (tmp_path / "movie.mp4", UsageError, "give a folder of pictures, a .txt, an .npz, or scenes"),
    ]
    for source, kind, message in cases:
        with pytest.raises(kind, match=re.escape(message)):
            open_pictures(str(source), SIZE, 4)
    with pytest.raises(UsageError, match="0 calibration images: give at least 1"):
        open_pictures("scenes", SIZE, 0)


def test_progress_is_told() -> None:
    told: list[tuple[str, float | None]] = []
    found: Pictures = open_pictures("scenes", (8, 8), 2, on_step=lambda *step: told.append(step))
    assert len(found) == 2
    assert told == [("look at images", 0.0), ("look at images", 0.5)]
