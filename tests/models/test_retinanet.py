"""The detector: mmdet's names, mmdet's wiring, the paper's numbers, and outputs that mean what the spec says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiresvit.data.preprocess import valid_region
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.export.contract import output_names, output_specs
from hiresvit.models.create import (
    build_model,
    create_model,
    enliven,
    find_spec,
    load_model_weights,
    model_spec,
)
from hiresvit.models.fold import fold
from hiresvit.models.macs import count_params
from hiresvit.models.retinanet import FPN, Detector, RetinaHead
from hiresvit.runtime.boxes import find_boxes
from hiresvit.spec import AnchorSpec

SIZE = (64, 128)


@cache
def lively() -> Detector:
    spec = model_spec("mixformer_b0", "detect", SIZE)
    model = build_model(spec)
    assert isinstance(model, Detector)
    enliven(model, spec)
    return model


def image(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def reference(state: dict[str, Tensor], maps: list[Tensor]) -> list[Tensor]:
    """FPN and head in functions, by mmdet's keys: what its modules do, one convolution at a time."""

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)

    laterals = [conv(x, f"neck.lateral_convs.{i}.conv") for i, x in enumerate(maps)]
    for fine, coarse in ((1, 2), (0, 1)):
        laterals[fine] = laterals[fine] + F.interpolate(laterals[coarse], size=laterals[fine].shape[2:], mode="nearest")
    levels = [conv(x, f"neck.fpn_convs.{i}.conv") for i, x in enumerate(laterals)]
    levels.append(conv(maps[-1], "neck.fpn_convs.3.conv", 2))  # on_input
    levels.append(conv(levels[-1], "neck.fpn_convs.4.conv", 2))  # no ReLU between
    found = []
    for tower, last in (("cls_convs", "retina_cls"), ("reg_convs", "retina_reg")):
        for level in levels:
            x = level
            for i in range(4):
                x = F.relu(conv(x, f"bbox_head.{tower}.{i}.conv"))
            found.append(conv(x, f"bbox_head.{last}"))
    return found


def test_wired_as_mmdet_s() -> None:
    model = create_model("mixformer_b0", "detect", SIZE).double()
    assert isinstance(model, Detector)
    with torch.no_grad():
        maps = model.backbone(image().double())
        expected = reference(dict(model.state_dict()), list(maps[1:]))
        for one, other in zip(model(image().double()), expected, strict=True):
            # Rounding leaves 1e-15; a level that reads the pyramid's map, or a ReLU more, costs 1e-3.
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_keys_of_mmdet() -> None:
    """As mmdet 3.3's ``retinanet_pvt*_fpn_1x_coco`` names them beside ``backbone.*``."""
    neck = [f"neck.lateral_convs.{i}.conv" for i in range(3)] + [f"neck.fpn_convs.{i}.conv" for i in range(5)]
    towers = [f"bbox_head.{tower}.{i}.conv" for tower in ("cls_convs", "reg_convs") for i in range(4)]
    heads = ["bbox_head.retina_cls", "bbox_head.retina_reg"]
    wanted = {f"{key}.{what}" for key in (*neck, *towers, *heads) for what in ("weight", "bias")}
    assert {key for key in lively().state_dict() if not key.startswith("backbone.")} == wanted


def test_outputs_are_those_of_the_contract() -> None:
    for name, size in (("mixformer_b0", (61, 125)), ("hiri_vit_s", (64, 192))):
        spec = model_spec(name, "detect", size, 7)
        with torch.device("meta"):
            outputs = build_model(spec)(torch.empty(2, 3, *size))
        assert [tuple(one.shape) for one in outputs] == [tensor.shape for tensor in output_specs(spec, 2)]
        assert [tensor.name for tensor in output_specs(spec)] == output_names(spec)
    assert output_names(spec)[:2] == ["logits_16", "logits_32"]
    assert output_names(spec)[-1] == "deltas_256"


@pytest.mark.parametrize("levels", [3, 4, 6])
def test_only_the_paper_s_arrangement_has_its_parameters(levels: int) -> None:
    """Lin et al.'s five levels, of which the first extra one reads the backbone: 41.1 and 59.8 M are no others'."""
    with torch.device("meta"):
        head = count_params(RetinaHead(80, AnchorSpec()))
        five, other = (count_params(FPN((128, 320, 512), count)) + head + 30.840e6 for count in (5, levels))
    assert round(five / 1e6, 1) == 41.1
    assert round(other / 1e6, 1) != 41.1


def test_folding_changes_nothing() -> None:
    model = lively().double()
    with torch.no_grad():
        for one, other in zip(model(image().double()), fold(model)(image().double()), strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["mixformer_b0", "hiri_vit_s"])
def test_fresh_weights_find_a_handful(name: str) -> None:
    """Of several classes: no box, or the same everywhere, would compare nothing."""
    from hiresvit.data.preprocess import example_input
    from hiresvit.data.scenes import sample_images

    spec = model_spec(name, "detect", SIZE)
    model = build_model(spec)
    enliven(model, spec)
    assert spec.anchors is not None
    picture = example_input(sample_images(1, SIZE)[0], spec.preprocess, SIZE)
    with torch.no_grad():
        outputs = {n: t.numpy() for n, t in zip(output_names(spec), model(torch.from_numpy(picture)), strict=True)}
    found = find_boxes(outputs, spec.anchors, SIZE, valid_region(SIZE, spec.preprocess, SIZE))
    assert 10 <= len(found.scores) <= 100
    assert len(set(found.classes.tolist())) > 5
    assert max(found.scores) < 0.9


@pytest.mark.parametrize(("name", "size"), [("hiri_vit_s", (96, 64)), ("mixformer_b1", (100, 64))])
def test_sizes_that_do_not_halve(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"takes multiples of (64|32) on both sides"):
        model_spec(name, "detect", size)


def test_who_has_anchors() -> None:
    assert model_spec("hiri_vit_s", "detect").anchors == AnchorSpec(strides=(16, 32, 64, 128, 256))
    assert model_spec("mixformer_b0", "detect").anchors == AnchorSpec()
    assert model_spec("mixformer_b0", "features").anchors is None
    spec = model_spec("mixformer_b0", "detect")
    assert replace(spec, anchors=None) != spec


def test_the_head_is_shared_by_all_levels() -> None:
    assert len([m for m in lively().bbox_head.modules() if isinstance(m, nn.Conv2d)]) == 10


def test_files_of_mmdet(tmp_path: Path) -> None:
    """Recognised by its keys; other numbers of classes, other heads and two stages are told apart."""
    spec = model_spec("mixformer_b0", "detect", SIZE, 7)
    state = dict(build_model(spec).state_dict())
    path = tmp_path / "epoch_12.pth"
    torch.save({"meta": {"dataset_meta": {"classes": tuple("abcdefg")}}, "state_dict": state}, path)
    asked = find_spec(str(path))
    assert (asked.spec.name, asked.spec.task, asked.spec.num_classes) == ("mixformer_b0", "detect", 7)
    report = load_model_weights(build_model(spec), spec, path)
    assert (report.loaded, report.left_out) == (len(state), ())
    assert report.labels is not None
    assert report.labels.names == tuple("abcdefg")
    with pytest.raises(HiresvitError, match="trained with 7 classes, the model has 80: pass --num-classes 7"):
        load_model_weights(
            build_model(model_spec("mixformer_b0", "detect", SIZE)), model_spec("mixformer_b0", "detect", SIZE), path
        )
    features = model_spec("mixformer_b0", "features", SIZE)
    report = load_model_weights(build_model(features), features, path)
    assert report.left_out == ("bbox_head.*", "neck.*")

    body = {key: value for key, value in state.items() if not key.startswith("bbox_head.")}
    torch.save({"state_dict": body | {"rpn_head.rpn_conv.weight": torch.ones(2), "roi_head.x": torch.ones(2)}}, path)
    with pytest.raises(HiresvitError, match=r"two-stage detector \(roi_head\.\*, rpn_head\.\*\).*--task features"):
        load_model_weights(build_model(spec), spec, path)
    assert load_model_weights(build_model(features), features, path).left_out == ("neck.*", "roi_head.*", "rpn_head.*")
    torch.save({"state_dict": {key: value for key, value in state.items() if key.startswith("backbone.")}}, path)
    with pytest.raises(HiresvitError, match=r"no detection head \(no neck\.\* bbox_head\.\* keys\)"):
        load_model_weights(build_model(spec), spec, path)
