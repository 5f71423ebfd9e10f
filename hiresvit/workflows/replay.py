"""The golden pair of a bundle, replayed: whether this machine answers as the one did that exported it."""

from __future__ import annotations

import numpy as np

from hiresvit.bundle.folder import Bundle
from hiresvit.bundle.golden import Golden, read_pair
from hiresvit.bundle.manifest import Manifest
from hiresvit.bundle.stages import STAGES
from hiresvit.data.image import load_image
from hiresvit.errors import ArtefactError, HiresvitError
from hiresvit.evaluation.answers import answer_gate, check_answers, compare_answer, read_gate
from hiresvit.evaluation.parity import GATES, Gate, check_gate, compare_runs
from hiresvit.evaluation.reference import TENSOR, answer_of, example_feed
from hiresvit.runtime.frame import labels_of
from hiresvit.runtime.runner import Runner
from hiresvit.spec import Feed


def replay_golden(bundle: Bundle, runner: Runner, role: str) -> None:
    """Raise ArtefactError unless this machine gives what the exporting machine gave, within the export's gate.

    The picture's file must become the input, the input the output, and that the answer for the picture.
    """
    golden, stage = read_pair(bundle), STAGES[role].gate
    try:
        failures = _picture_failures(bundle, golden) or _failures(bundle.manifest, golden, runner, stage)
    except (KeyError, HiresvitError) as error:  # other names or shapes than the graph's, NaN
        failures = [f"it does not fit the {role} file ({error})"]
    if failures:
        what = failures[0].partition("; --")[0]  # no option of the reader's would lift it
        raise ArtefactError(
            f"{bundle.folder}: the golden pair does not come out on this machine: {what}; export it again"
        )


def _picture_failures(bundle: Bundle, golden: Golden) -> list[str]:
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


def _failures(manifest: Manifest, golden: Golden, runner: Runner, stage: str) -> list[str]:
    """What of the output, or else of the answer, misses the gates of a stage."""
    spec, contract, parity = manifest.spec, manifest.contract, manifest.parity or {"stages": ()}
    found = runner(golden.inputs)
    framed = contract != TENSOR
    stages = parity["contract"]["stages"] if framed and "contract" in parity else parity["stages"]
    gates = {done["stage"]: done["gate"] for done in stages if done["gate"]}
    if not framed or spec.task == "features":
        gate = Gate(**gates[stage]) if stage in gates else GATES[stage]
        failures = check_gate(compare_runs(golden.outputs, found, spec.task), gate, stage)
        limit = answer_gate(stage, contract, spec.task, gate.min_agreement)
    else:
        limit = read_gate(gates[stage]) if stage in gates else answer_gate(stage, contract, spec.task, None)
        failures = check_answers(compare_answer(golden.outputs, found), limit, stage)
    if failures or not golden.answer or spec.preprocess.resize == "slide":  # of a slide that is one window of several
        return failures
    if spec.task == "segment":
        height, width = golden.answer["labels"].shape
        answer: Feed = {"labels": labels_of(found, (height, width), spec, contract)}
    else:
        answer = answer_of(found, (1, 1), spec, contract)
    return check_answers(compare_answer(golden.answer, answer), limit, f"{stage}: the picture's answer")
