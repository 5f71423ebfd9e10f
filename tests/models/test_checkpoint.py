"""Checkpoints of every kind users have: read safely, matched key by key, loaded whole or not at all."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import re
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.weights.file import Checkpoint, read_checkpoint, save_safetensors
from hiresvit.models.weights.layout import Layout
from hiresvit.models.weights.match import LoadReport
from hiresvit.models.weights.match import load_weights as load_with_layout
from hiresvit.spec import Task

GOLDEN = Path(__file__).parents[1] / "golden"
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

# A miniature of the authors' layout: backbone of two parts, a BatchNorm, and the heads beside it.
BACKBONE: Shapes = {
    "stem.conv1.weight": (4, 3, 3, 3),
    "stem.bn1.weight": (4,),
    "stem.bn1.running_mean": (4,),
    "stem.bn1.num_batches_tracked": (),
    "features.1.branches.0.0.attn.to_qkv.weight": (8, 4),
}
CLASSIFY: Shapes = {**BACKBONE, "head.classifier.weight": (10, 4), "head.classifier.bias": (10,)}
SEGMENT: Shapes = {
    **{f"backbone.{key}": shape for key, shape in BACKBONE.items()},
    "decode_head.convs.0.conv.weight": (4, 4, 1, 1),
    "decode_head.conv_seg.weight": (19, 4, 1, 1),
    "decode_head.conv_seg.bias": (19,),
}


LAYOUT = Layout(classifier="head.classifier.")


def load_weights(model: nn.Module, path: Path, *, layout: Layout = LAYOUT, **options: Any) -> LoadReport:
    return load_with_layout(model, path, layout=layout, **options)


def module(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A model whose state has these keys, all zero."""
    root = nn.Module()
    for key, shape in shapes.items():
        *path, name = key.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        if name == "num_batches_tracked":
            owner.register_buffer(name, torch.zeros(shape, dtype=torch.int64))
        elif name.startswith("running"):
            owner.register_buffer(name, torch.zeros(shape))
        else:
            owner.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    return root


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 1) -> State:
    random = torch.Generator().manual_seed(seed)
    return {
        key: torch.tensor(7) if key.endswith("tracked") else torch.randn(shape, generator=random)
        for key, shape in shapes.items()
    }


def saved(folder: Path, content: object, name: str = "w.pth", **how: Any) -> Path:
    torch.save(content, folder / name, **how)
    return folder / name


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def same(model: nn.Module, expected: Mapping[str, Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)


def refusal(path: Path, shapes: Shapes = CLASSIFY, task: Task = "classify", **options: Any) -> str:
    """The one line that a file is refused with; the model must still be as it was."""
    model = module(shapes)
    with pytest.raises(HiresvitError) as caught:
        load_weights(model, path, task=task, **options)
    assert same(model, module(shapes).state_dict()), "a refused checkpoint was half loaded"
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


# What a file may look like

KINDS: dict[str, tuple[Callable[[State], object], str]] = {
    "timm": (
        lambda s: {
            "epoch": 299,
            "arch": "HRViT_b1_224",
            "state_dict": OrderedDict(s),
            "optimizer": {
                "state": {0: {"step": torch.tensor(1.0)}},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}],
            },
            "version": 2,
            "args": argparse.Namespace(model="HRViT_b1_224", lr=1e-3, mean=None, opt=["a"]),
            "metric": np.float64(81.5),
        },
        "state_dict",
    ),
    "mmcv": (
        lambda s: {
            "meta": {
                "epoch": 1,
                "CLASSES": ("road",),
                "PALETTE": [[1, 2, 3]],
                "best": np.float32(0.5),
                "a": np.ones(2),
            },
            "state_dict": OrderedDict(s),
        },
        "state_dict",
    ),
    "ema only": (lambda s: {"state_dict_ema": s}, "state_dict_ema"),
    "model": (lambda s: {"model": s, "epoch": 3}, "model"),
    "bare": (lambda s: s, "bare"),
    "parallel": (lambda s: {"state_dict": prefixed(s, "module.")}, "state_dict"),
    "bare parallel": (lambda s: prefixed(s, "module."), "bare"),
    "parameters": (
        lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
        "bare",
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_is_loaded_whole(tmp_path: Path, kind: str, zipped: bool) -> None:
    wrap, source = KINDS[kind]
    state = tensors(CLASSIFY)
    path = saved(tmp_path, wrap(state), "w.pth.tar", _use_new_zipfile_serialization=zipped)
    model = module(CLASSIFY)
    report = load_weights(model, path, task="classify")
    assert same(model, state)
    assert (report.source, report.loaded, report.left_out) == (source, len(CLASSIFY), ())


def test_plain_facts_beside_the_weights_are_kept_as_text(tmp_path: Path) -> None:
    wrap, _ = KINDS["timm"]
    checkpoint = read_checkpoint(saved(tmp_path, wrap(tensors(CLASSIFY))))
    assert checkpoint.metadata == {"epoch": "299", "arch": "HRViT_b1_224", "version": "2", "metric": "81.5"}


def test_ema_chooses_between_the_two_sets(tmp_path: Path) -> None:
    plain, average = tensors(CLASSIFY, seed=1), tensors(CLASSIFY, seed=2)
    path = saved(tmp_path, {"state_dict": plain, "state_dict_ema": prefixed(average, "module.")})
    model = module(CLASSIFY)
    report = load_weights(model, path, task="classify")
    assert same(model, plain)
    assert report.notes == ("the file has EMA weights too: --ema loads them",)
    report = load_weights(model, path, task="classify", ema=True)
    assert same(model, average)
    assert (report.source, report.notes) == ("state_dict_ema", ())


def test_ema_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    message = refusal(saved(tmp_path, {"model": state, "state_dict": state}), ema=True)
    assert message.endswith("has no EMA weights, only model (7 tensors), state_dict (7 tensors); leave out --ema")
    assert "has no EMA weights, only one set" in refusal(saved(tmp_path, state), ema=True)
    save_file(state, tmp_path / "w.safetensors")
    assert "has no EMA weights" in refusal(tmp_path / "w.safetensors", ema=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_and_that_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors(CLASSIFY).items()}
    model = module(CLASSIFY)
    report = load_weights(model, saved(tmp_path, state), task="classify")
    assert same(model, {key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    assert report.notes == (f"6 tensors converted from {str(dtype)[6:]} to float32",)


def test_num_batches_tracked_may_be_absent_or_one_too_many(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    counter = "stem.bn1.num_batches_tracked"
    model = module(CLASSIFY)
    report = load_weights(model, saved(tmp_path, {k: v for k, v in state.items() if k != counter}), task="classify")
    assert same(model, {**state, counter: torch.tensor(0)})
    assert report.loaded == len(CLASSIFY) - 1
    folded = module({key: shape for key, shape in CLASSIFY.items() if key != counter})
    assert load_weights(folded, saved(tmp_path, state), task="classify").loaded == len(CLASSIFY) - 1


def test_the_runner_of_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log is pickled as objects of a class of its own, which is not needed and never made."""
    made = []

    class HistoryBuffer:
        def __init__(self) -> None:
            made.append(self)
            self._log_history = np.ones(3)
            self._count_history = np.array([1, 2], dtype=np.int64)
            self._max_length = 1000000

    history = ModuleType("mmengine.logging.history_buffer")
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = history.__name__, "HistoryBuffer"
    history.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, history.__name__, history)
    state = tensors({**SEGMENT, "auxiliary_head.conv_seg.weight": (19, 4, 1, 1)})
    content = {
        "meta": {"cfg": "model = dict()", "dataset_meta": {"classes": ("road",)}, "seed": 1, "epoch": 0},
        "state_dict": OrderedDict(state),
        "message_hub": {
            "log_scalars": OrderedDict(loss=HistoryBuffer()),
            "runtime_info": OrderedDict(iter=160000, best=np.float64(0.5)),
            "resumed_keys": OrderedDict(iter=True),
        },
        "param_schedulers": [{"begin": 0, "_global_step": 1}],
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 6e-5}]},
    }
    path = saved(tmp_path, content)
    for name in ("mmengine", "mmengine.logging", history.__name__):
        monkeypatch.delitem(sys.modules, name)
    model = module(SEGMENT)
    report = load_weights(model, path, task="segment")
    assert same(model, {key: state[key] for key in SEGMENT})
    assert (report.source, report.left_out) == ("state_dict", ("auxiliary_head.*",))
    assert len(made) == 1


def test_paddle_files_are_read_by_their_content(tmp_path: Path) -> None:
    """The reader is tested in test_pdparams.py."""
    state = tensors({key: shape for key, shape in BACKBONE.items() if not key.endswith("tracked")})
    arrays = {key.replace("running_mean", "_mean"): value.numpy() for key, value in state.items()}
    (tmp_path / "w.pth").write_bytes(pickle.dumps(arrays))
    model = module(BACKBONE)
    report = load_weights(model, tmp_path / "w.pth", task="features", layout=replace(LAYOUT, linears=("head",)))
    assert (report.source, report.loaded) == ("pdparams", len(state))
    assert "is Paddle's, which this model has none of" in refusal(tmp_path / "w.pth", BACKBONE, "features")
    assert "has no EMA weights, only one set" in refusal(tmp_path / "w.pth", BACKBONE, "features", ema=True)


# From one task's file to another task's model


def test_a_classification_file_serves_features_without_its_head(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    model = module(BACKBONE)
    report = load_weights(model, saved(tmp_path, state), task="features")
    assert same(model, {key: state[key] for key in BACKBONE})
    assert report.left_out == ("head.*",)


def test_a_segmentation_file_serves_segment_and_features(tmp_path: Path) -> None:
    state = tensors({**SEGMENT, "auxiliary_head.conv_seg.weight": (19, 4, 1, 1)})
    path = saved(tmp_path, {"meta": {}, "state_dict": state})
    model = module(SEGMENT)
    assert load_weights(model, path, task="segment").left_out == ("auxiliary_head.*",)
    assert same(model, {key: state[key] for key in SEGMENT})
    backbone = module(BACKBONE)
    assert load_weights(backbone, path, task="features").left_out == ("auxiliary_head.*", "decode_head.*")
    assert same(backbone, {key: state[f"backbone.{key}"] for key in BACKBONE})


def test_a_file_without_the_tasks_head_says_what_to_do(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path, tensors(CLASSIFY)), SEGMENT, "segment")
    assert "no segmentation head" in message
    assert "--task features" in message
    assert "mmseg" in message
    message = refusal(saved(tmp_path, tensors(SEGMENT)), CLASSIFY, "classify")
    assert "no classification head (no head.* keys): use --task segment or --task features" in message


def test_an_untrained_head_is_taken_when_that_is_asked_for(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    path = saved(tmp_path, state)
    assert "or --allow-missing head to go on with an untrained head" in refusal(path, SEGMENT, "segment")
    model = module(SEGMENT)
    report = load_weights(model, path, task="segment", allow_missing_head=True)
    heads = {key: torch.zeros(shape) for key, shape in SEGMENT.items() if key.startswith("decode_head.")}
    assert same(model, {f"backbone.{key}": state[key] for key in BACKBONE} | heads)
    assert (report.left_out, report.fresh) == (("head.*",), ("decode_head.*",))
    assert report.untrained == f"decode_head.* (not in {path.name})"
    # A head that is there must fit.
    shapes = {**CLASSIFY, "head.classifier.weight": (3, 4), "head.classifier.bias": (3,)}
    path = saved(tmp_path, tensors(shapes))
    assert "pass --num-classes 3" in refusal(path, allow_missing_head=True)
    with pytest.raises(UsageError, match="features have no head that could be missing"):
        load_weights(module(BACKBONE), path, task="features", allow_missing_head=True)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_classifier_of_unknown_names(tmp_path: Path, prefix: str) -> None:
    """LRFormer's: nobody documented how the authors' files call it."""
    loose = Layout(classifier="head.classifier.", foreign_head=True)
    state = tensors(BACKBONE)
    strange = {"final_fc.weight": torch.ones(1000, 4), "bn_head.weight": torch.ones(4)}
    path = saved(tmp_path, prefixed({**state, **strange}, prefix))
    message = refusal(path, layout=loose)
    assert "no classification head (no head.* keys)" in message
    assert "skipped 2 that belong to nothing known (final_fc.weight, bn_head.weight)" in message
    assert message.endswith("--allow-missing head to go on with an untrained head")
    report = load_weights(module(CLASSIFY), path, task="classify", layout=loose, allow_missing_head=True)
    assert report.left_out == ("bn_head.*", "final_fc.*")
    assert report.fresh == ("head.*",)
    model = module(BACKBONE)
    report = load_weights(model, path, task="features", layout=loose)
    assert same(model, state)
    assert report.left_out == ("bn_head.*", "final_fc.*")
    # Families whose names are known have none to skip.
    assert "2 unexpected" in refusal(path, BACKBONE, "features")


def test_a_classifier_of_unknown_names_below_our_prefix(tmp_path: Path) -> None:
    loose = Layout(classifier="head.classifier.", foreign_head=True)
    state = {**tensors(BACKBONE), "head.weight": torch.ones(1000, 4), "head.classifier.bias": torch.ones(10)}
    path = saved(tmp_path, state)
    assert "skipped 2 that belong to nothing known (head.weight, head.classifier.bias)" in refusal(path, layout=loose)
    report = load_weights(module(CLASSIFY), path, task="classify", layout=loose, allow_missing_head=True)
    assert (report.left_out, report.fresh) == (("head.*",), ("head.*",))


def test_a_stranger_inside_the_backbone_is_no_classifier(tmp_path: Path) -> None:
    path = saved(tmp_path, {**tensors(BACKBONE), "stem.extra": torch.ones(1)})
    message = refusal(path, BACKBONE, "features", layout=Layout(foreign_head=True))
    assert "1 unexpected (stem.extra)" in message


def test_a_classifier_of_several_parts(tmp_path: Path) -> None:
    """MixFormer's: a norm, a projection, and the classes in a layer right below the root."""
    parted = Layout(head=("norm", "last_proj", "head"), classifier="head.")
    head: Shapes = {
        "norm.weight": (4,),
        "last_proj.weight": (6, 4),
        "head.weight": (10, 6),
        "head.bias": (10,),
    }
    whole = {**BACKBONE, **head}
    path = saved(tmp_path, tensors(whole))
    assert load_weights(module(whole), path, task="classify", layout=parted).loaded == len(whole)
    report = load_weights(module(BACKBONE), path, task="features", layout=parted)
    assert report.left_out == ("head.*", "last_proj.*", "norm.*")
    fewer = {**whole, "head.weight": (3, 6), "head.bias": (3,)}
    assert "pass --num-classes 10" in refusal(path, fewer, layout=parted)
    wider = {**whole, "last_proj.weight": (7, 4)}
    assert "1 of another shape (last_proj.weight" in refusal(path, wider, layout=parted)


def test_a_key_with_and_without_its_prefix_is_ambiguous(tmp_path: Path) -> None:
    state = {**tensors(SEGMENT), "stem.bn1.weight": torch.zeros(4)}
    assert "has stem.bn1.weight twice" in refusal(saved(tmp_path, state), BACKBONE, "features")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Shapes, Path]]:
    """The key list of an official model, and a checkpoint with those keys."""
    folder = tmp_path_factory.mktemp("official")

    def get(name: str) -> tuple[Shapes, Path]:
        listed = json.loads((GOLDEN / f"{name}.keys.json").read_text())["keys"]
        shapes = {key: tuple(shape) for key, shape, _ in listed}
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.save({"state_dict": tensors(shapes)}, path)
        return shapes, path

    return get


def test_the_official_classification_keys_are_all_accounted_for(
    official: Callable[[str], tuple[Shapes, Path]],
) -> None:
    shapes, path = official("hrvit_b1")
    assert load_weights(module(shapes), path, task="classify").loaded == len(shapes)
    backbone = {key: shape for key, shape in shapes.items() if not key.startswith("head.")}
    assert load_weights(module(backbone), path, task="features").loaded == len(backbone) < len(shapes)


def test_the_official_segmentation_keys_are_all_accounted_for(
    official: Callable[[str], tuple[Shapes, Path]],
) -> None:
    shapes, path = official("hrvit_b1_seg")
    assert load_weights(module(shapes), path, task="segment").loaded == len(shapes)


def test_a_file_that_looks_like_another_model_says_so(official: Callable[[str], tuple[Shapes, Path]]) -> None:
    _, path = official("hrvit_b1_seg")
    message = refusal(path, SEGMENT, "segment", hint=lambda checkpoint: f"looks like {len(checkpoint.tensors)} tensors")
    assert re.search(r"not the model asked for: looks like \d{4} tensors$", message)
    assert "not the model asked for" not in refusal(path, SEGMENT, "segment")


# What does not fit


def test_missing_unexpected_and_misshapen_keys_are_in_one_line(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    del state["stem.conv1.weight"]
    state["stem.bn1.weight"] = torch.zeros(5)
    state |= {f"adapter.{i}": torch.zeros(1) for i in range(15)}
    message = refusal(saved(tmp_path, state))
    assert "nothing was loaded" in message
    assert "1 missing (stem.conv1.weight)" in message
    assert "15 unexpected (adapter.0, adapter.1, adapter.2 and 12 more)" in message
    assert "1 of another shape (stem.bn1.weight is float32[5] and should be float32[4])" in message


def test_another_number_of_classes_names_the_option(tmp_path: Path) -> None:
    shapes = {**SEGMENT, "decode_head.conv_seg.weight": (150, 4, 1, 1), "decode_head.conv_seg.bias": (150,)}
    message = refusal(saved(tmp_path, tensors(shapes)), SEGMENT, "segment")
    assert message.endswith("trained with 150 classes, the model has 19: pass --num-classes 150")
    shapes = {**CLASSIFY, "head.classifier.weight": (1000, 4), "head.classifier.bias": (1000,)}
    assert "pass --num-classes 1000" in refusal(saved(tmp_path, tensors(shapes)))


def test_what_a_file_looks_like_is_only_asked_when_needed(tmp_path: Path) -> None:
    asked = []

    def hint(_: Checkpoint) -> str:
        asked.append(1)  # trying every variant takes seconds
        return ""

    report = load_weights(module(CLASSIFY), saved(tmp_path, tensors(CLASSIFY)), task="classify", hint=hint)
    assert (report.fresh, asked) == ((), [])
    with pytest.raises(HiresvitError):
        load_weights(module(CLASSIFY), saved(tmp_path, {"a": torch.ones(1)}), task="classify", hint=hint)
    assert asked


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_numbers_of_another_kind_are_a_mismatch(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {**tensors(CLASSIFY), "stem.bn1.weight": torch.ones(4, dtype=dtype)}
    assert f"stem.bn1.weight is {str(dtype)[6:]}[4] and should be float32[4]" in refusal(saved(tmp_path, state))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_training_is_noticed(tmp_path: Path, value: float) -> None:
    state = {**tensors(CLASSIFY), "stem.bn1.weight": torch.tensor([1.0, value, 1.0, 1.0])}
    assert "1 tensors hold NaN or infinity (stem.bn1.weight)" in refusal(saved(tmp_path, state))


def test_a_float64_that_float32_cannot_hold_is_noticed(tmp_path: Path) -> None:
    state = {**tensors(CLASSIFY), "stem.bn1.weight": torch.full((4,), 1e300, dtype=torch.float64)}
    assert "NaN or infinity" in refusal(saved(tmp_path, state))


# What is no checkpoint


class Attack:
    """Pickles as a call that creates a file."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


ATTACKS: dict[str, Callable[[Path], Attack]] = {
    f"{os.system.__module__}.system": lambda victim: Attack(os.system, f"touch {victim}"),
    "shutil.copyfile": lambda victim: Attack(shutil.copyfile, __file__, str(victim)),
    "builtins.exec": lambda victim: Attack(exec, f"open({str(victim)!r}, 'w').close()"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("named", ATTACKS)
def test_a_file_that_wants_to_run_code_does_not(tmp_path: Path, named: str, zipped: bool) -> None:
    victim = tmp_path / "created"
    content = {"state_dict": tensors(CLASSIFY), "args": ATTACKS[named](victim)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    named = named.replace("builtins", "(builtins|__builtin__)")
    assert re.search(f"it asks for {named}, which is not plain data and could run code", refusal(path))
    assert not victim.exists()
    # The attack is real: plain unpickling, which trusts the file, does create it.
    torch.load(path, weights_only=False)
    assert victim.exists()


def test_a_model_that_was_pickled_whole_is_read_and_not_made(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 2)))
    model.get_submodule("stem").register_buffer("index", torch.ones(2), persistent=False)
    for zipped in (True, False):
        found = read_checkpoint(saved(tmp_path, {"model": model}, _use_new_zipfile_serialization=zipped))
        assert found.source == "model"
        assert found.tensors.keys() == model.state_dict().keys()
        assert found.notes == ("the model was pickled whole: its weights were read, its code was not run",)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_byte(path: Path) -> None:
    path.write_bytes(b"P")


def web_page(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title>")


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}}, protocol=4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "does not exist"),
        (folder, "is a folder"),
        (empty, "is empty"),
        (one_byte, "is text that begins 'P'; give a checkpoint"),
        (truncated, "is truncated, damaged or not a checkpoint"),
        (web_page, "is an HTML page, as a failed download leaves; give a checkpoint"),
        (other_zip, "is a zip archive of 'a.txt', not a checkpoint: unpack it first"),
        (tar, "is a tar archive of 'storages': unpack it first"),
        (plain_pickle, "holds no tensors, only 'state_dict' (empty dict)"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = saved(tmp_path, tensors(CLASSIFY))
    damage(path)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it is empty"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors, only 'epoch' (int), 'lr' (float)"),
        ({"state_dict": {}}, "holds no tensors, only 'state_dict' (empty dict)"),
        ({"a": {"b": 1, "c": 2}}, "holds no tensors, only 'a' (dict of 'b', 'c')"),
        (
            {"state": {0: {"step": torch.ones(1)}}},
            "holds no tensors under the names of a model's, only 'state' (dict of",
        ),
        ({3: torch.ones(1)}, "a tensor under 3, which is not a tensor's name"),
        ({"a\nb": torch.ones(1)}, "is not a tensor's name"),
        ({"a": torch.ones(2, device="meta")}, "without its data"),
        ({"a": torch.ones(2).to_sparse()}, "sparse"),
        ([1, 2], "holds a list"),
        (torch.ones(2), "holds a tensor, not a dict of tensors"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, content: object, message: str) -> None:
    assert message in refusal(saved(tmp_path, content))


def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # users still have such files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    assert "is a TorchScript program" in refusal(tmp_path / "w.pt")


def test_a_flipped_bit_in_the_numbers_is_found(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    path = saved(tmp_path, state)
    content = bytearray(path.read_bytes())
    content[content.index(state["stem.conv1.weight"].numpy().tobytes()) + 40] ^= 1
    path.write_bytes(content)
    assert not torch.equal(  # PyTorch itself does not look at the zip's checksums
        torch.load(path, weights_only=True)["stem.conv1.weight"], state["stem.conv1.weight"]
    )
    assert "fails its checksum" in refusal(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_anywhere_is_one_line_or_harmless(tmp_path: Path, kind: str) -> None:
    path, state = tmp_path / "w", tensors(BACKBONE)
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    messages = []
    places = range(0, len(whole), max(1, len(whole) // 150))
    for place in places:
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                found = read_checkpoint(path).tensors
                # A zip's checksums leave no room for other numbers; the two other formats have none.
                assert kind != "zip" or all(torch.equal(found[key], state[key]) for key in state)
            except HiresvitError as error:
                messages.append(str(error))
    assert len(messages) >= len(places)  # every truncation at least
    assert not [message for message in messages if "\n" in message]


# Our own files


def test_safetensors_are_read_back_with_their_metadata(tmp_path: Path) -> None:
    model = module(CLASSIFY)
    state = tensors(CLASSIFY)
    model.load_state_dict(state)
    path = tmp_path / "w.safetensors"
    metadata = {"spec": "{}", "a": "\u00e9", "z": "1"}
    save_safetensors(model, path, metadata)
    assert read_checkpoint(path).metadata == metadata
    other = module(CLASSIFY)
    assert load_weights(other, path, task="classify").source == "safetensors"
    assert same(other, state)


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    """The library's own writer puts the metadata in another order at each call."""
    facts = [(str(number), "x") for number in range(20)]
    contents = set()
    for attempt in range(4):
        save_safetensors(module(CLASSIFY), tmp_path / "w", dict(facts if attempt % 2 else reversed(facts)))
        contents.add((tmp_path / "w").read_bytes())
    assert len(contents) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["w"]


def test_a_safetensors_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HiresvitError, match="cannot write"):
        save_safetensors(module(CLASSIFY), tmp_path / "file" / "w.safetensors", {})
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
