"""A part of the fault table, on a tiny network with fresh weights: what sees which fault, and nothing sees none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_simplified, tiny_spec

from hiresvit.data.dataset import Kept
from hiresvit.data.scenes import Scenes
from hiresvit.export.contract import complete
from hiresvit.spec import ContractSpec

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import fault_table  # type: ignore[import-not-found, unused-ignore]

        yield fault_table
    sys.modules.pop("fault_table", None)


@pytest.fixture(scope="module")
def yard(table: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    spec = tiny_spec()
    truth = table.Shipped(tiny_simplified(spec), replace(spec, preprocess=replace(spec.preprocess, resize="keep")))
    scenes = Kept(Scenes(2, (64, 120)))
    contract = complete(truth.spec, ContractSpec("camera", size=(64, 120)))
    framed = tmp_path_factory.mktemp("right") / "right.onnx"
    table.save_framed(truth, contract, framed)
    with table.running(truth.graph) as runner:
        counts = table.counted(truth, runner, scenes)
        yield table.Yardstick(truth, runner, scenes, [scenes[0].image], contract, counts, framed)


def caught(table: ModuleType, yard: Any, fault: str, folder: Path) -> tuple[set[str], dict[str, Any]]:
    """The gates that catch a fault but for the mIoU of a network that knows nothing, and all that they say."""
    shipped = table.FAULTS[fault](yard.truth)
    found = table.gates(yard, shipped, folder)
    assert set(found) == set(table.COLUMNS)
    return {name for name, cell in found.items() if cell["caught"]} - {"miou"}, found


def test_no_fault_is_caught_by_nothing(table: ModuleType, yard: Any, tmp_path: Path) -> None:
    names, found = caught(table, yard, "none", tmp_path)
    assert not names
    assert found["miou"]["points"] == 0


def test_another_order_of_colours_is_seen_from_pictures_alone(table: ModuleType, yard: Any, tmp_path: Path) -> None:
    names, found = caught(table, yard, "BGR for RGB", tmp_path)
    assert {"answers", "layers", "sqnr"} <= names
    assert names.isdisjoint({"onnx", "fp16", "golden"})
    assert found["layers"]["text"].startswith("contract: everything")  # what makes the network's input of pixels


def test_a_scale_is_named_with_its_module(table: ModuleType, yard: Any, tmp_path: Path) -> None:
    names, found = caught(table, yard, "twice an attention's output", tmp_path)
    assert {"layers", "onnx", "golden", "answers"} <= names
    module, _, said = found["layers"]["text"].partition(": ")
    assert module.endswith(".attn.to_out.0")
    assert said.startswith("scale")


def test_labels_are_seen_by_the_accuracy_alone(table: ModuleType, yard: Any, tmp_path: Path) -> None:
    names, found = caught(table, yard, "labels off by one", tmp_path)
    assert not names
    assert found["miou"]["points"] != 0


def test_what_a_network_does_not_have_is_no_fault_of_it(table: ModuleType, yard: Any) -> None:
    assert table.FAULTS["poolings one cell off"](yard.truth) is None
