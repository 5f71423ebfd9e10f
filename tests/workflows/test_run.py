"""Where the answers for pictures go: a name for each, none of them a picture's, and no two the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiresvit.errors import UsageError
from hiresvit.workflows.run import name_many, name_one


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def many(*images: str, labels: str | None = "l") -> list[tuple[str, str | None]]:
    found = name_many([Path(image) for image in images], Path("o"), Path(labels) if labels else None)
    return [(str(one.overlay), str(one.labels) if one.labels else None) for one in found]


def test_one_picture() -> None:
    assert name_one(Path("in/a.jpg"), None, None).overlay == Path("a-segment.png")
    assert name_one(Path("-"), None, None).overlay == Path("stdin-segment.png")
    named = name_one(Path("a.jpg"), Path("x.PNG"), Path("y.png"))
    assert (named.overlay, named.labels) == (Path("x.PNG"), Path("y.png"))
    Path("there.d").mkdir()
    in_folders = name_one(Path("a.jpg"), Path("there.d"), Path("new"))
    assert (in_folders.overlay, in_folders.labels) == (Path("there.d/a-segment.png"), Path("new/a.png"))


def test_many_pictures_keep_their_places_and_never_share_a_name() -> None:
    assert many("p/a.jpg", "p/b.jpg") == [("o/a-segment.png", "l/a.png"), ("o/b-segment.png", "l/b.png")]
    assert many("p/x/a.jpg", "p/y/a.jpg", labels=None) == [("o/x/a-segment.png", None), ("o/y/a-segment.png", None)]
    same = many("p/a.jpg", "p/a.png", "p/A.JPG", "p/a-png.jpg", "p/a.PNG")
    assert len({overlay.casefold() for overlay, _ in same}) == len({str(one).casefold() for _, one in same}) == 5
    assert same[:2] == [("o/a-segment.png", "l/a.png"), ("o/a-png-segment.png", "l/a-png.png")]
    away = many("../../up/a.jpg", "/elsewhere/b.jpg")
    assert all(".." not in str(path) and not Path(str(path)).is_absolute() for row in away for path in row)


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        ("o.png", None, "--output o.png: there are several pictures, give a folder"),
        ("file", None, "--output file: there are several pictures"),
        ("o", "l.png", "--labels l.png: there are several pictures"),
        ("o", "./o", "--labels o: this is where the overlays go"),
        ("o", "p", "--labels p/b.png: this is the picture itself"),
    ],
)
def test_folders_that_are_none(output: str, labels: str | None, said: str) -> None:
    Path("file").write_text("x")
    Path("p").mkdir()
    Path("p/b.png").write_text("x")
    with pytest.raises(UsageError, match=said):
        name_many([Path("p/a.jpg"), Path("p/b.png")], Path(output), Path(labels) if labels else None)


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        ("x.jpg", None, "--output x.jpg: the overlay is a PNG"),
        (None, "x.tif", "--labels x.tif: labels are a PNG"),
        ("a.png", None, "--output a.png: this is the picture itself"),
        (None, "link.png", "--labels link.png: this is the picture itself"),
        ("x.png", "x.png", "--labels x.png: this is the overlay"),
    ],
)
def test_files_that_are_none(output: str | None, labels: str | None, said: str) -> None:
    Path("a.png").write_text("x")
    Path("link.png").symlink_to("a.png")
    with pytest.raises(UsageError, match=said):
        name_one(Path("a.png"), Path(output) if output else None, Path(labels) if labels else None)
