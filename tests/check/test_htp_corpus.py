"""The rules about Qualcomm's HTP against their corpus, and the corpus against the real compiler and its emulator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_graphs import Entry
from corpus_htp import HTP, LEAST
from findings import problems_on, rules_at
from graphs import build, content, run
from htp_qdq import feeds_of
from onnx import ModelProto

from hiresvit.check import htp_rules
from hiresvit.check.qualcomm import HTP_TARGETS
from hiresvit.check.rules import RULES
from hiresvit.check.targets import TARGETS
from hiresvit.device import qnn_api
from hiresvit.device.chips import CHIPS, find_chip
from hiresvit.process import Worker
from hiresvit.runtime.qnn_messages import Failed, Opening

needs_qnn = pytest.mark.skipif(not qnn_api.installed(), reason="onnxruntime-qnn is not installed")
CHIP_TARGETS = list(HTP_TARGETS.values())
RIGHT = 30.0
"""dB against FP32: 8 bits leave 33 to 45 of these graphs, and what is computed wrongly 20 at most."""
# Hazards that are of speed or of another precision, and no wrong answer.
HARMLESS = {"one_scale"}
# What takes most of the time and shows what its neighbour shows: for the slow test alone.
REPEATED = {
    "attention both ways, joined flat",
    *(e.name for e in HTP if re.search(r"both ways in \d+ bits(,|$)(?! 8x12)", e.name)),
}
NEIGHBOURS = {
    "floating_point": ("relu in integers", "sum that nobody quantizes"),
    "one_scale": ("pool", "pool with two scales"),
    "narrow_product": ("product of uint8", "product in 16 bits"),
    "edge_pad": ("repeated border in integers", "repeated border"),
    "byte_cast": ("pixels by int32", "pixels"),
    "padded_mean": ("mean that counts its padding", "mean that does not count its padding"),
    "long_mean": ("mean of 4x4", "mean of 4x4 with two scales"),
    "turned_weight": ("weight along its outputs", "weight along its inputs"),
    "half_product": ("product of five axes", "product of five axes in FP16"),
    "signed_softmax": ("softmax in 8 bits", "softmax in int8"),
    "wide_mask": ("mask of -20 in 8 bits", "mask of -100 in 8 bits"),
    "lost_transpose": ("attention both ways, added by half", "attention both ways"),
    "fused_gelu": ("gelu behind a relu", "gelu behind a convolution"),
}


class TestRules:
    @pytest.mark.parametrize("entry", HTP, ids=lambda entry: entry.name.replace(" ", "-"))
    def test_exactly_what_is_expected(self, entry: Entry) -> None:
        for target, found in problems_on(entry.model(), CHIP_TARGETS).items():
            expected = entry.on(target)
            assert rules_at("illegal", found) == expected.illegal, (target, found)
            assert rules_at("hazard", found) == expected.hazard, (target, found)

    def test_every_rule_has_a_good_and_a_bad_graph(self) -> None:
        assert list(NEIGHBOURS) == [rule.name for rule in RULES if rule in vars(htp_rules).values()]
        entries = {entry.name: entry for entry in HTP}
        for rule, names in NEIGHBOURS.items():
            good, bad = (
                {
                    finding.rule
                    for found in problems_on(entries[name].model(), CHIP_TARGETS).values()
                    for finding in found
                }
                for name in names
            )
            assert good <= {"floating_point"} - {rule}, rule
            assert rule in bad, rule

    def test_say_nothing_about_nvidia(self) -> None:
        for target in TARGETS.values():
            assert all(NEIGHBOURS.keys().isdisjoint({rule.name}) for rule in RULES if rule.level_on(target)), target

    def test_names_are_of_rules_and_graphs(self) -> None:
        names = {rule.name for rule in RULES}
        for target in CHIP_TARGETS:
            assert target.not_asked <= names | {"attention"}
            assert target.miscomputes <= NEIGHBOURS.keys()
        assert LEAST.keys() <= {entry.name for entry in HTP}
        assert len({entry.name for entry in HTP}) == len(HTP)


def weakest(references: Iterable[Any], answers: Iterable[Any]) -> float:
    """The dB of the worst output; none of a NaN, nor where the shapes differ."""
    found = []
    for reference, answer in zip(references, answers, strict=True):
        wanted, got = np.asarray(reference, np.float64), np.asarray(answer, np.float64)
        if wanted.shape != got.shape or not np.isfinite(got).all():
            return -np.inf
        error = np.linalg.norm(wanted - got)
        found.append(20 * np.log10(np.linalg.norm(wanted) / error) if error else np.inf)
    return float(min(found))


class Emulator:
    """The real compiler and emulator: one child for many graphs, and another when a graph has killed it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.worker = folder / "graph.onnx", self._start()

    def _start(self) -> Worker:
        return Worker(["-m", "hiresvit.runtime._qnn_child"])

    def __call__(self, entry: Entry, chip: str) -> float | None:
        """How close the answer is to FP32, in dB; -inf for a run that fails, None for a graph that is not taken."""
        model = entry.model()
        self.path.write_bytes(content(model))
        try:
            if isinstance(self.worker.ask(Opening(str(self.path), find_chip(chip).soc_model)), Failed):
                return None
            answers = self.worker.ask(feeds_of(model))
        except ChildProcessError:
            self.worker.close()
            self.worker = self._start()
            return None
        return -np.inf if isinstance(answers, Failed) else weakest(reference(entry, model), answers)


def reference(entry: Entry, model: ModelProto) -> list[Any]:
    """What the graph gives in FP32, before it was quantized."""
    return run(build(entry.text, entry.constants, entry.opset), feeds_of(model))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path_factory.mktemp("htp"))
    yield emulator
    emulator.worker.close()


def disagreement(entry: Entry, chip: str, emulator: Emulator) -> str:
    """What the compiler or the emulator says against the verdict that is expected; "" if nothing."""
    expected = entry.on(chip)
    advised = {f.rule for f in problems_on(entry.model(), [HTP_TARGETS[chip]])[chip] if f.level == "advice"}
    closeness, least = emulator(entry, chip), LEAST.get(entry.name, RIGHT)
    if expected.illegal:
        return "" if closeness is None else f"it is taken, with {closeness:.1f} dB"
    if expected.hazard - HARMLESS | advised:
        right = closeness is not None and closeness >= least
        return f"it is right, with {closeness:.1f} dB: the rule can go" if right else ""
    return "it is refused" if closeness is None else "" if closeness >= least else f"it has {closeness:.1f} dB"


@needs_qnn
class TestAgainstTheRealCompiler:
    def test_takes_what_is_legal_and_computes_what_is_no_hazard(self, emulator: Emulator) -> None:
        """On one chip: Q/DQ on glasses, floating point on a phone; on the oldest, where that differs."""
        tried = [
            (e, "sm8650" if "floating_point" in e.on("ar1").illegal else "ar1") for e in HTP if e.name not in REPEATED
        ]
        tried += [(entry, "xr2-gen2") for entry in HTP if entry.on("xr2-gen2") != entry.on("sm8650")]
        tried += [(entry, "ar1") for entry in HTP if entry.name in ("relu", "addend in FP32")]
        wrong = {(entry.name, chip): disagreement(entry, chip, emulator) for entry, chip in tried}
        assert {key: said for key, said in wrong.items() if said} == {}

    @pytest.mark.slow
    @pytest.mark.parametrize("chip", CHIPS)
    def test_on_every_chip(self, chip: str, emulator: Emulator) -> None:
        wrong = {entry.name: disagreement(entry, chip, emulator) for entry in HTP}
        assert {name: said for name, said in wrong.items() if said} == {}
