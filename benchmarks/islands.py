"""What an island is worth: an FP32 graph against its FP16 form, rounded as FP16 rounds, with other modules in FP32.

    python benchmarks/islands.py BUNDLE/simplified.onnx --fp32 "*.mask_embed*" --fp16 "*.gn" --fp16 "*.key_masks"

Each ``--fp32`` and each ``--fp16`` is a row of its own: what the modules say of themselves, but for those of the
pattern, in which ``*`` is anything, dots included. A flip is another truth in a boolean tensor, as the masks of a
Mask2Former's attentions are. On drawn pictures, of which the worst counts.
"""

from __future__ import annotations

import argparse
import json
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from hiresvit.data.preprocess import example_input
from hiresvit.data.scenes import sample_images
from hiresvit.evaluation.exact import exact_graph
from hiresvit.export.contract import INPUT, read_stamp
from hiresvit.export.fp16 import to_fp16
from hiresvit.graph.index import index_graph, module_of
from hiresvit.graph.precision import LOWEST_KEY, Lowest, read_lowest
from hiresvit.runtime.onnxruntime_runner import open_session

Answers = list[list[NDArray[Any]]]


def answers(model: ModelProto, truths: list[str], feeds: list[dict[str, NDArray[Any]]]) -> Answers:
    """The first output and the boolean tensors, of each picture."""
    seen = ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[1:]
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in truths)
    session = open_session(seen.SerializeToString())
    return [session.run(None, feed) for feed in feeds]


def row(reference: Answers, test: Answers) -> str:
    """SQNR of the worst picture, agreement of the largest class, and flips."""
    noise = [np.linalg.norm(a[0] - b[0]) / np.linalg.norm(a[0]) for a, b in zip(reference, test, strict=True)]
    same = np.mean([np.mean(a[0].argmax(1) == b[0].argmax(1)) for a, b in zip(reference, test, strict=True)])
    pairs = [pair for a, b in zip(reference, test, strict=True) for pair in zip(a[1:], b[1:], strict=True)]
    flips, bits = sum(int((a != b).sum()) for a, b in pairs), sum(a.size for a, _ in pairs)
    return f"{-20 * np.log10(max(noise)):.1f} dB, agreement {same:.3%}, {flips} of {bits} truths"


def measured(
    model: ModelProto, lowest: Lowest, reference: Answers, truths: list[str], feeds: list[dict[str, NDArray[Any]]]
) -> str:
    """A row, of the FP16 form of a graph whose modules say ``lowest``."""
    said = ModelProto()
    said.CopyFrom(model)
    others = {prop.key: prop.value for prop in model.metadata_props}
    helper.set_model_props(said, others | {LOWEST_KEY: json.dumps(lowest)})
    half, report = to_fp16(said)
    exact = exact_graph(half)
    assert exact is not None
    return f"{report.casts} casts, {row(reference, answers(exact.model, truths, feeds))}"


def ends(path: str) -> list[int]:
    """Where the modules that a module is in end in its path, and it itself."""
    return [place for place, letter in enumerate(path) if letter == "."] + [len(path)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph")
    parser.add_argument("--fp32", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--fp16", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    model = onnx.load(options.graph)
    index = index_graph(model, {})
    stamped = read_stamp(index.metadata)
    assert stamped is not None, "no graph of an export"
    spec, lowest = stamped[0], dict(read_lowest(index.metadata))
    feeds = [{INPUT: example_input(i, spec.preprocess, spec.imgsz)} for i in sample_images(options.images, spec.imgsz)]
    truths = [name for node in index.nodes if node.op_type == "And" for name in node.output]
    reference = answers(model, truths, feeds)
    print("classes in each picture:", [len(np.unique(found[0].argmax(1))) for found in reference])
    modules = {path[:end] for path in {module_of(node.name) for node in index.nodes} for end in ends(path)}
    print("as they say:", measured(model, lowest, reference, truths, feeds), flush=True)
    asked: list[tuple[str, Literal["fp32", "fp16"]]] = [(pattern, "fp32") for pattern in options.fp32]
    asked += [(pattern, "fp16") for pattern in options.fp16]
    for pattern, precision in asked:
        change: Lowest = {module: precision for module in modules if fnmatchcase(module, pattern)}
        assert change, f"no module is like {pattern}"
        found = measured(model, {**lowest, **change}, reference, truths, feeds)
        print(f"{pattern} in {precision}, {len(change)} modules:", found, flush=True)


if __name__ == "__main__":
    main()
