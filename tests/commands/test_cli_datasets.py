"""`hiresvit eval` and `run` on published data sets, from the folder to the names in the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Cli
from published import FRAMES, write_ade20k, write_cityscapes

NANO = ("hrvit_nano", "--imgsz", "32x64")


def test_eval_counts_the_classes_of_the_split_that_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    write_cityscapes(tmp_path, "train", FRAMES[:2])
    asked = ("eval", *NANO, "--dataset", "cityscapes", "--data", tmp_path, "--json")
    for split, pictures in ((), 3), (("--split", "train"), 2):
        found = json.loads(cli(*asked, *split).out)["accuracy"]
        assert (found["dataset"]["name"], found["images"]) == (f"cityscapes {'train' if split else 'val'}", pictures)
        shares = {row["name"]: row["share"] for row in found["sides"][0]["classes"]}
        # of each picture a pixel of road and one of car count; the rest is void
        assert {name: share for name, share in shares.items() if share} == {"road": 0.5, "car": 0.5}
        assert found["worst"]
        for row in found["worst"]:
            assert (tmp_path / row["picture"]).is_file()


def test_run_calls_classes_as_the_data_set_does(cli: Cli, tmp_path: Path) -> None:
    write_ade20k(tmp_path)
    picture = tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg"
    asked = ("run", *NANO, picture, "-o", tmp_path / "o.png", "--dataset", "ade20k", "--data", tmp_path, "--json")
    assert json.loads(cli(*asked, "--num-classes", "150").out)["labels"] == {"source": "dataset"}
    refused = cli(*asked)
    assert refused.code == 2
    assert "hrvit_nano answers classes 0 to 18, ade20k val has class 19 (chair); give a network" in refused.err


@pytest.mark.parametrize(("name", "expected"), [("ade20k", "ADEChallengeData2016"), ("imagenet", "val/WNID")])
def test_a_wrong_layout_is_said_before_a_network_is_measured(
    cli: Cli, tmp_path: Path, name: str, expected: str
) -> None:
    found = cli("eval", *NANO, "--dataset", name, "--data", write_cityscapes(tmp_path))
    assert found.code == 1
    assert "has no folder" in found.err
    assert expected in found.err
