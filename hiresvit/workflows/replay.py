"""The golden pair of a bundle, replayed: whether this machine answers as the one did that exported it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.golden import Golden, read_pair
from hiresvit.bundle.manifest import Manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.data.image import load_image
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.evaluation.answers import AnswerGate, answer_gate, check_answers, compare_answer, read_gate
from hiresvit.evaluation.parity import GATES, Gate, check_gate, compare_runs, gate_of_runner
from hiresvit.evaluation.reference import TENSOR, answer_of, example_feed
from hiresvit.runtime.frame import labels_of
from hiresvit.runtime.runner import Runner
from hiresvit.spec import Feed, ModelSpec, is_raw


@dataclass(frozen=True)
class Replay:
    """How far a runner's output for the golden input is from the golden output, and the gate that this is held to.

    ``report`` is a `ParityReport`, or behind a contract an `AnswerParity`, as plain JSON values. ``answer`` compares
    what that says of the picture with the golden answer, with a gate of its own; None where there is none, and where
    the output has missed its gate already. ``failures`` has a line for each measure that misses.
    """

    gate: dict[str, Any]
    report: dict[str, Any]
    answer: dict[str, Any] | None
    failures: tuple[str, ...]


def replay_golden(bundle: Bundle, runner: Runner, role: str) -> None:
    """Raise ArtefactError unless this machine gives what the exporting machine gave, within the export's gate.

    The picture's file must become the input, the input the output, and that the answer for the picture.
    """
    golden = read_pair(bundle)
    try:
        failures = picture_failures(bundle, golden) or [*replay_pair(bundle.manifest, golden, runner, role).failures]
    except (KeyError, HiresvitError) as error:  # other names or shapes than the graph's, NaN
        failures = [f"it does not fit the {role} file ({error})"]
    if failures:
        what = failures[0].partition("; --")[0]  # no option of the reader's would lift it
        raise ArtefactError(
            f"{bundle.folder}: the golden pair does not come out on this machine: {what}; export it again"
        )


def picture_failures(bundle: Bundle, golden: Golden) -> list[str]:
    """Whether the picture becomes the input, to a grey level; bundles of schema 5 and before have none."""
    manifest = bundle.manifest
    if not any(entry.role == "picture" for entry in manifest.files):
        return []
    feed = example_feed(load_image(bundle.path("picture")), manifest.spec, manifest.contract)
    level = 1.01 / 255 / min(manifest.spec.preprocess.std) if manifest.contract == TENSOR else 1.0
    for name, values in golden.inputs.items():
        if values.shape != feed[name].shape or np.abs(values.astype(np.float64) - feed[name]).max() > level:
            return [f"its picture does not become its input {name!r}"]
    return []


def replay_pair(manifest: Manifest, golden: Golden, runner: Runner, role: str) -> Replay:
    """Run the golden input through the file of a role. Raises KeyError and HiresvitError for what does not fit it."""
    spec, contract, parity = manifest.spec, manifest.contract, manifest.parity or {"stages": ()}
    stage, framed = STAGES[role].gate, contract != TENSOR
    stages = parity["contract"]["stages"] if framed and "contract" in parity else parity["stages"]
    gates = {done["stage"]: done["gate"] for done in stages if done["gate"]}
    found = runner(golden.inputs)
    if not framed or is_raw(spec.task):
        gate = gate_of_runner(Gate(**gates[stage]) if stage in gates else GATES[stage], runner, spec)
        compared = compare_runs(golden.outputs, found, spec.task, spec.anchors)
        failures = check_gate(compared, gate, stage)
        limit = _in_precision(answer_gate(stage, contract, spec.task, gate.min_agreement), runner, spec)
        seen, report = asdict(gate), compared.to_json()
    else:
        limit = read_gate(gates[stage]) if stage in gates else answer_gate(stage, contract, spec.task, None)
        limit = _in_precision(limit, runner, spec)
        answers = compare_answer(golden.outputs, found)
        failures = check_answers(answers, limit, stage)
        seen, report = asdict(limit), answers.to_json()
    answer = None
    # of a slide the pair is one window of several
    if not failures and golden.answer and spec.preprocess.resize != "slide":
        answer, failures = _answer(manifest, golden, found, limit, stage)
    return Replay(seen, report, answer, tuple(failures))


def _in_precision(limit: AnswerGate, runner: Runner, spec: ModelSpec) -> AnswerGate:
    """The limit of a runner that was told to compute in fewer bits: as of INT8, how far numbers are apart is open."""
    if runner.precision is None:
        return limit
    return AnswerGate(gate_of_runner(Gate(0.0, 0.0, limit.min_agreement), runner, spec).min_agreement, None)


def _answer(
    manifest: Manifest, golden: Golden, found: Feed, limit: AnswerGate, stage: str
) -> tuple[dict[str, Any], list[str]]:
    """What the output says of the picture, beside the golden answer, and what of it misses the limit."""
    spec, contract = manifest.spec, manifest.contract
    if spec.task == "segment":
        height, width = golden.answer["labels"].shape
        answer: Feed = {"labels": labels_of(found, (height, width), spec, contract)}
    else:
        answer = answer_of(found, (1, 1), spec, contract)
    compared = compare_answer(golden.answer, answer)
    failures = check_answers(compared, limit, f"{stage}: the picture's answer")
    return {**compared.to_json(), "gate": asdict(limit)}, failures
