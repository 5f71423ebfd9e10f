"""INT8 is recommended where it is measured to be fast enough and right often enough, on engines of known speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import Network, Tensor, TensorIOMode, opened

from hiresvit.data.scenes import Scenes
from hiresvit.errors import MissingDependency
from hiresvit.export.contract import TENSOR
from hiresvit.models.create import model_spec
from hiresvit.spec import ContractSpec
from hiresvit.workflows import decide as deciding
from hiresvit.workflows.decide import decide, race, recommend
from hiresvit.workflows.yardstick import Yardstick

SPEC = model_spec("hrvit_b1", "segment", (32, 32), 19)
FEED = {"image": np.zeros((1, 3, 32, 32), np.float32)}
ROAD = 0


@dataclass
class Clock:
    """Moves only when an engine works."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


def engine(folder: Path, clock: Clock, ms: float, answer: int = ROAD) -> Any:
    """An engine whose calls take so long, and that answers one class everywhere."""
    logits = np.zeros((1, 19, 32, 32), np.float32)
    logits[:, answer] = 1

    def compute(_: Any) -> Any:
        clock.now += round(1e6 * ms)
        return {"logits": logits}

    tensors = (
        Tensor("image", TensorIOMode.INPUT, (1, 3, 32, 32)),
        Tensor("logits", TensorIOMode.OUTPUT, (1, 19, 32, 32)),
    )
    folder.mkdir()
    return opened(folder, Network(tensors, compute=compute))[0]


Engines = Callable[..., dict[str, Path]]


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """Plans of a device that is here: FP16 takes 3 ms."""
    clock = Clock()

    def make(speedup: float, *, fp16: int = ROAD, int8: int = ROAD) -> dict[str, Path]:
        made = {
            "fp16": engine(tmp_path / "fp16", clock, 3.0, fp16),
            "int8": engine(tmp_path / "int8", clock, 3.0 / speedup, int8),
        }
        monkeypatch.setattr(deciding, "open_runner", lambda path: made[path.name])
        monkeypatch.setattr(deciding, "has_driver", lambda: True)
        monkeypatch.setattr(deciding, "race", lambda runners, feed: race(runners, feed, clock))
        return {name: tmp_path / name for name in made}

    return make


def decided(plans: dict[str, Path], accuracy: Any = None, proof: Any = None, **changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"contract": TENSOR, "max_drop": None, "on_step": lambda *_: None}
    return decide(plans, FEED, accuracy, proof, **(given | changed))


def rows(int8: float) -> dict[str, Any]:
    return {"metric": "mIoU", "data": "scenes", "images": 2, "rows": {"fp32": 90.0, "fp16": 90.0, "int8": int8}}


@pytest.mark.parametrize(
    ("speedup", "int8", "max_drop", "recommended"),
    [
        (1.5, 90.0, 0.5, "int8"),
        (1.5, 89.5, 0.5, "int8"),
        (1.5, 89.9, 0.1, "int8"),
        (1.5, 89.4, 0.5, "fp16"),
        (1.5, 80.0, None, "int8"),
        (1.01, 90.0, 0.5, "fp16"),
        (0.7, 90.0, 0.5, "fp16"),
    ],
)
def test_it_must_be_fast_and_right(
    engines: Engines, speedup: float, int8: float, max_drop: float | None, recommended: str
) -> None:
    found = decided(engines(speedup), rows(int8), max_drop=max_drop)
    assert (found["recommended"], found["undecided"]) == (recommended, None)
    assert found["speedup"]["median"] == pytest.approx(speedup, rel=1e-5)
    assert found["latency"]["fp16"]["median_ms"] == pytest.approx(3)
    assert found["latency"]["int8"]["median_ms"] == pytest.approx(3 / speedup, rel=1e-5)


def test_the_least_speedup_is_enough() -> None:
    assert [recommend(speedup, None, None) for speedup in (1.0199, 1.02)] == ["fp16", "int8"]


def test_what_counts_is_the_plans_own_accuracy(engines: Engines) -> None:
    """The graphs were right on ONNX Runtime; the INT8 plan sees one class for another."""
    scenes = Scenes(2, (32, 32))
    proof = Yardstick(SPEC, scenes, "mIoU", [])
    wrong = 13  # cars everywhere
    found = decided(engines(1.5, int8=wrong), rows(90.0), proof, max_drop=5.0)
    labels = np.stack([scenes[index].labels for index in range(2)])
    for name, answer in (("fp16", ROAD), ("int8", wrong)):
        hits = np.count_nonzero(labels == answer)
        present = {*np.unique(labels).tolist(), answer} - {255}
        expected = 100 * (hits / labels.size) / len(present)  # one class has an IoU, the others none
        assert found["accuracy"]["rows"][name] == pytest.approx(expected)
    assert found["accuracy"]["rows"]["fp32"] == 90
    assert found["recommended"] == "fp16"


def test_a_cameras_plans_are_not_measured_on_pictures_of_another_size(engines: Engines) -> None:
    proof = Yardstick(SPEC, Scenes(2, (32, 32)), "mIoU", [])
    camera = ContractSpec("camera", size=(90, 140))
    found = decided(engines(1.5), rows(89.9), proof, max_drop=0.5, contract=camera)
    assert (found["recommended"], found["accuracy"]) == ("int8", rows(89.9))


def test_without_a_device_nothing_is_recommended(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = engines(1.5)
    monkeypatch.setattr(deciding, "has_driver", lambda: False)
    found = decided(plans, rows(90.0), max_drop=0.5)
    assert (found["recommended"], found["latency"], found["speedup"]) == (None, None, None)
    assert found["undecided"] == "there is no NVIDIA GPU with a driver here"
    assert decided({})["undecided"] == "no plans were built"
    monkeypatch.setattr(deciding, "has_driver", lambda: True)

    def absent(_: Path) -> None:
        raise MissingDependency("TensorRT is not\ninstalled")

    monkeypatch.setattr(deciding, "open_runner", absent)
    found = decided(plans)
    assert (found["recommended"], found["undecided"]) == (None, "TensorRT is not installed")
