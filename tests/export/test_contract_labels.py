"""What a contract makes of logits: the labels that `hiresvit.runtime` makes of them, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from framed import answers, framed, logits_of, picture, segmenting
from graphs import Array, build, noise, run
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tiny import tiny_spec

from hiresvit.errors import UsageError
from hiresvit.export.contract import TENSOR, complete, stamp
from hiresvit.export.fp16 import to_fp16
from hiresvit.export.frame import apply_contract
from hiresvit.runtime.frame import labels_of
from hiresvit.spec import ContractSpec, LabelType, ModelSpec, PreprocessSpec, Resize

KEEP = PreprocessSpec("keep", filter="opencv", rounding="round")


def spec_of(preprocess: PreprocessSpec = KEEP, classes: int = 7, imgsz: tuple[int, int] = (64, 96)) -> ModelSpec:
    return replace(tiny_spec("segment", imgsz), num_classes=classes, preprocess=preprocess)


def agreement(
    network: ModelProto,
    spec: ModelSpec,
    contract: ContractSpec,
    damage: Callable[[ModelProto], object] | None = None,
    *,
    batch: int = 1,
) -> float:
    """The share of pixels with the label that the tensor graph and `labels_of` give."""
    model, contract = framed(network, spec, contract)
    if damage:
        damage(model)
    size = contract.size
    assert size is not None
    found, feeds = answers(model, spec, contract, *(picture(*size, seed=seed) for seed in range(batch)))
    alone = network if batch == 1 else segmenting(spec)
    wanted = [labels_of(logits_of(alone, feed), size, spec, TENSOR) for feed in feeds]
    if contract.name == "image":
        wanted = [logits_of(alone, feed)["logits"][0].argmax(0) for feed in feeds]
    assert len(np.unique(np.stack(wanted))) > 3
    return float(np.mean(found["labels"] == np.stack(wanted)))


class TestLabels:
    @pytest.mark.parametrize("opset", [17, 20, 22])
    def test_of_an_image(self, opset: int) -> None:
        assert agreement(segmenting(spec_of(), opset=opset), spec_of(), ContractSpec("image")) == 1

    @pytest.mark.parametrize("size", [(150, 260), (41, 53), (64, 96), (131, 77), (97, 300)], ids=str)
    @pytest.mark.parametrize("resize", ["stretch", "keep", "letterbox"])
    @pytest.mark.parametrize("stage", ["simplified", "cpu"])
    def test_of_a_camera(self, stage: str, resize: Resize, size: tuple[int, int]) -> None:
        spec = spec_of(replace(KEEP, resize=resize))
        network = segmenting(spec)
        stamp(network, spec, stage)
        assert agreement(network, spec, ContractSpec("camera", size=size)) >= 0.9999

    @pytest.mark.parametrize("size", [(150, 260), (41, 53), (131, 77), (97, 300)], ids=str)
    @pytest.mark.parametrize("resize", ["stretch", "keep", "letterbox"])
    def test_of_logits_with_cells_larger_than_a_pixel(self, resize: Resize, size: tuple[int, int]) -> None:
        """As they are with --no-resize; a region then ends within a cell."""
        spec = spec_of(replace(KEEP, resize=resize))
        assert agreement(segmenting(spec, stride=4), spec, ContractSpec("camera", size=size)) >= 0.9999

    def test_of_an_image_with_large_cells(self) -> None:
        spec = spec_of()
        network = segmenting(spec, stride=4)
        model, contract = framed(network, spec, ContractSpec("image"))
        found, (feed,) = answers(model, spec, contract, picture(64, 96))
        stretched = replace(spec, preprocess=PreprocessSpec())
        wanted = labels_of(logits_of(network, feed), (64, 96), stretched, TENSOR)
        assert np.mean(found["labels"][0] == wanted) >= 0.9999

    @pytest.mark.parametrize("name", ["image", "camera"])
    @pytest.mark.parametrize("batch", ["2", "N"])
    def test_of_a_batch(self, batch: str, name: str) -> None:
        spec = spec_of()
        contract = ContractSpec("camera", size=(41, 70)) if name == "camera" else ContractSpec("image")
        assert agreement(segmenting(spec, batch=batch), spec, contract, batch=2) >= 0.9999

    @pytest.mark.parametrize("kind", ["uint8", "int32", "int64"])
    def test_of_each_type(self, kind: LabelType) -> None:
        spec = spec_of()
        assert agreement(segmenting(spec), spec, ContractSpec("image", label_type=kind)) == 1

    @pytest.mark.parametrize(("classes", "kind"), [(256, "uint8"), (300, "int32"), (1, "uint8")])
    def test_of_many_classes_and_of_one(self, classes: int, kind: str) -> None:
        spec = spec_of(classes=classes)
        network = segmenting(spec)
        model, contract = framed(network, spec, ContractSpec("image"))
        found, (feed,) = answers(model, spec, contract, picture(64, 96))
        assert contract.label_type == kind
        assert np.array_equal(found["labels"][0], logits_of(network, feed)["logits"][0].argmax(0))

    @pytest.mark.parametrize("io", ["fp32", "fp16"])
    @pytest.mark.parametrize("contract", [ContractSpec("image"), ContractSpec("camera", size=(150, 260))], ids=str)
    def test_of_fp16(self, contract: ContractSpec, io: str) -> None:
        """What FP16 loses of a convolution; the labels are those of its own logits."""
        spec = spec_of()
        half = to_fp16(segmenting(spec), io="fp16" if io == "fp16" else "fp32")[0]
        assert agreement(segmenting(spec), spec, contract) >= 0.9999
        model, contract = framed(half, spec, contract)
        found, (feed,) = answers(model, spec, contract, picture(*(contract.size or (0, 0))))
        feed = {"image": feed["image"].astype(np.float16 if io == "fp16" else np.float32)}
        logits = {"logits": run(half, feed)[0].astype(np.float32)}
        wanted = labels_of(logits, contract.size or (0, 0), spec, TENSOR)
        if contract.name == "image":
            wanted = logits["logits"][0].argmax(0)
        # A level whose FP16 is rounded from another last bit of FP32 is another input.
        assert np.mean(found["labels"][0] == wanted) >= (0.999 if io == "fp16" else 0.9999)

    def test_fp16_logits_are_not_cast(self) -> None:
        """40 MB of 19 classes at 512x1024, for an ArgMax that takes them as they are."""
        spec = spec_of()
        model, _ = framed(to_fp16(segmenting(spec))[0], spec, ContractSpec("image"))
        index = {name: node for node in model.graph.node for name in node.output}
        winner = next(node for node in model.graph.node if node.op_type == "ArgMax")
        assert index[winner.input[0]].op_type == "Conv"
        assert not any("logits" in node.output for node in model.graph.node)


def with_attribute(op: str, name: str, value: object) -> Callable[[ModelProto], None]:
    def damage(model: ModelProto) -> None:
        node = next(n for n in reversed(model.graph.node) if n.op_type == op)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return damage


def shifted_region(model: ModelProto) -> None:
    """One row of logits too early."""
    node = [n for n in model.graph.node if n.op_type == "Slice"][-1]
    for number in (1, 2):
        old = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[number])
        model.graph.initializer.append(numpy_helper.from_array(old - 1, f"shifted_{number}"))
        node.input[number] = f"shifted_{number}"


class TestFaultsAreSeen:
    @pytest.mark.parametrize(
        ("contract", "damage"),
        [
            (
                ContractSpec("camera", size=(150, 260)),
                with_attribute("Resize", "coordinate_transformation_mode", "asymmetric"),
            ),
            (
                ContractSpec("camera", size=(150, 260)),
                with_attribute("Resize", "coordinate_transformation_mode", "align_corners"),
            ),
            (ContractSpec("camera", size=(150, 260)), with_attribute("Resize", "mode", "nearest")),
            (ContractSpec("camera", size=(97, 300)), shifted_region),
        ],
        ids=["half-pixel", "corners", "stretched-labels", "crop"],
    )
    def test_in_labels_of_a_camera(self, contract: ContractSpec, damage: Callable[[ModelProto], object]) -> None:
        spec = spec_of(replace(KEEP, resize="letterbox"))
        assert agreement(segmenting(spec), spec, contract) >= 0.9999
        assert agreement(segmenting(spec), spec, contract, damage) < 0.999

    def test_the_last_of_equals(self) -> None:
        spec = spec_of(classes=4)
        text = (
            "g (float[1,3,64,96] image) => (float[1,4,64,96] logits) { logits = Conv<pads=[2,2,2,2]>(image, weight) }"
        )
        network = build(text, {"weight": np.repeat(noise(2, 3, 5, 5), 2, 0)})
        model, contract = framed(network, spec, ContractSpec("image"))
        found, (feed,) = answers(model, spec, contract, picture(64, 96))
        wanted = logits_of(network, feed)["logits"][0].argmax(0)
        assert np.array_equal(found["labels"][0], wanted)
        assert set(np.unique(wanted)) == {0, 2}
        with_attribute("ArgMax", "select_last_index", 1)(model)
        assert set(np.unique(answers(model, spec, contract, picture(64, 96))[0]["labels"])) == {1, 3}


class TestConfidence:
    @pytest.mark.parametrize("stage", ["simplified", "cpu"])
    @pytest.mark.parametrize("size", [None, (41, 53)], ids=str)
    def test_is_the_winners_share(self, size: tuple[int, int] | None, stage: str) -> None:
        spec = spec_of(replace(KEEP, resize="stretch"))
        network = segmenting(spec)
        stamp(network, spec, stage)
        contract = ContractSpec("camera" if size else "image", size=size, confidence=True)
        model, contract = framed(network, spec, contract)
        found, (feed,) = answers(model, spec, contract, picture(*(contract.size or (0, 0))))
        logits = logits_of(network, feed)["logits"].astype(np.float64)
        if size:  # as ONNX's definition of bilinear says it; the region is all
            rows, columns = (
                np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
                for old, new in zip((64, 96), size, strict=True)
            )
            low, left = rows.astype(int), columns.astype(int)
            down, across = (rows - low)[:, None], columns - left
            top, below = logits[:, :, low], logits[:, :, np.minimum(low + 1, 63)]
            mixed = top * (1 - down) + below * down
            logits = mixed[..., left] * (1 - across) + mixed[..., np.minimum(left + 1, 95)] * across
        shares = np.exp(logits - logits.max(1, keepdims=True))
        wanted = np.floor(255 / shares.sum(1) + 0.5)
        apart = np.abs(found["confidence"].astype(int) - wanted)
        assert apart.max() <= 1
        assert np.mean(apart) < 2e-3  # a sum in FP32 at a half
        assert len(np.unique(wanted)) > 100

    @pytest.mark.parametrize("half", [False, True])
    def test_does_not_overflow(self, half: bool) -> None:
        """e^88 is the end of FP32, e^11 of FP16."""
        spec = spec_of(classes=3)
        text = "g (float[1,3,64,96] image) => (float[1,3,64,96] logits) { logits = Mul(image, factor) }"
        network = build(text, {"factor": np.float32(2e4)})
        model, contract = framed(to_fp16(network)[0] if half else network, spec, ContractSpec("image", confidence=True))
        found, _ = answers(model, spec, contract, picture(64, 96))
        assert found["confidence"].min() > 0.3 * 255
        assert found["confidence"].max() == 255


def classifying(spec: ModelSpec, weight: Array, *, half: bool = False) -> ModelProto:
    text = f"""g (float[N,3,{spec.imgsz[0]},{spec.imgsz[1]}] image) => (float[N,{spec.num_classes}] logits)
        {{ pooled = GlobalAveragePool(image)
           flat = Flatten(pooled)
           logits = Gemm(flat, weight) }}"""
    model = build(text, {"weight": weight})
    return to_fp16(model)[0] if half else model


class TestClasses:
    @pytest.mark.parametrize("half", [False, True])
    @pytest.mark.parametrize("kind", ["int32", "int64"])
    def test_the_best_come_first(self, kind: LabelType, half: bool) -> None:
        spec = replace(tiny_spec("classify"), num_classes=40)
        network = classifying(spec, noise(3, 40), half=half)
        model, contract = framed(network, spec, ContractSpec("camera", size=(150, 260), label_type=kind))
        assert contract.top_k == 5
        found, feeds = answers(model, spec, contract, picture(150, 260), picture(150, 260, seed=1))
        for number, feed in enumerate(feeds):
            logits = logits_of(network, feed)["logits"][0].astype(np.float64)
            best = np.argsort(-logits, kind="stable")[:5]
            shares = np.exp(logits - logits.max())
            assert np.array_equal(found["classes"][number], best)
            assert np.allclose(
                found["probabilities"][number], (shares / shares.sum())[best], rtol=1e-3 if half else 1e-5
            )

    def test_of_equals_the_lowest(self) -> None:
        """Also where logits differ and FP32 probabilities do not: e^-200 is 0."""
        spec = replace(tiny_spec("classify"), num_classes=6)
        model, contract = framed(classifying(spec, np.zeros((3, 6), np.float32)), spec, ContractSpec("image", top_k=4))
        found, _ = answers(model, spec, contract, picture(64, 96))
        assert found["classes"].tolist() == [[0, 1, 2, 3]]
        assert np.allclose(found["probabilities"], 1 / 6)
        far = np.zeros((3, 6), np.float32)
        far[0] = [0, 1000, -1000, -900, -800, 500]
        white = np.full((64, 96, 3), 255, np.uint8)
        model, contract = framed(classifying(spec, far), spec, ContractSpec("image", top_k=6))
        assert answers(model, spec, contract, white)[0]["classes"].tolist() == [[1, 5, 0, 4, 3, 2]]

    def test_as_many_as_there_are(self) -> None:
        spec = replace(tiny_spec("classify"), num_classes=3)
        assert complete(spec, ContractSpec("image")).top_k == 3


class TestGraphsThatAreNotOurs:
    def test_another_input(self) -> None:
        spec = spec_of()
        with pytest.raises(UsageError, match=r"the graph takes x; a contract goes around image"):
            apply_contract(
                build("g (float[1,3,64,96] x) => (float[1,3,64,96] logits) { logits = Relu(x) }"),
                spec,
                complete(spec, ContractSpec("image")),
            )

    def test_another_size(self) -> None:
        spec = spec_of()
        with pytest.raises(UsageError, match="a contract goes around image"):
            apply_contract(segmenting(spec_of(imgsz=(32, 32))), spec, complete(spec, ContractSpec("image")))

    def test_another_output(self) -> None:
        spec = spec_of()
        contract = complete(spec, ContractSpec("image"))
        done = apply_contract(segmenting(spec), spec, contract)
        done.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 96]))
        with pytest.raises(UsageError, match="the graph gives labels, not logits"):
            apply_contract(done, spec, contract)

    def test_a_tensors_contract_is_the_graph(self) -> None:
        spec = spec_of()
        network = segmenting(spec)
        assert apply_contract(network, spec, TENSOR) == network
