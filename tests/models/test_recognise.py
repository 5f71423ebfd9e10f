"""A checkpoint's file in the place of a model's name: what it is of, and what is said where it is not that."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hiresvit.errors import HiresvitError, UsageError
from hiresvit.models.create import (
    build_empty,
    convert_weights,
    create_model,
    find_spec,
    model_spec,
    recognise_spec,
)
from hiresvit.models.recognise import Candidate, find_candidates
from hiresvit.models.weights.file import read_checkpoint
from hiresvit.models.weights.match import LoadReport
from hiresvit.models.zoo import MODELS, names_checkpoint
from hiresvit.spec import Task

GOLDEN = Path(__file__).parents[1] / "golden"
State = Mapping[str, Tensor]
Saver = Callable[..., Path]


def blank(state: State) -> dict[str, Tensor]:
    """The same names, types and shapes over one zero each: a file of any variant has some hundred kB."""
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


@pytest.fixture
def saved(tmp_path: Path) -> Saver:
    def save(name: str, task: Task, classes: int | None = None, head: str | None = None, wrap: str = "") -> Path:
        state = blank(build_empty(name, task, classes, {"head": head} if head else {}))
        torch.save({"state_dict": {wrap + key: value for key, value in state.items()}}, tmp_path / "my.pth")
        return tmp_path / "my.pth"

    return save


def official(file: str, tmp_path: Path) -> Path:
    """The names and shapes of the authors' model, from the list that was recorded of it, as a checkpoint."""
    keys = json.loads((GOLDEN / f"{file}.keys.json").read_text())["keys"]
    state = {key: torch.zeros(()).to(getattr(torch, dtype)).expand(shape) for key, shape, dtype in keys}
    torch.save(state, tmp_path / f"{file}.pth")
    return tmp_path / f"{file}.pth"


OFFICIAL = sorted(path.name.removesuffix(".keys.json") for path in GOLDEN.glob("*.keys.json"))


# LRFormer-T with a Mask2Former head, of 19 classes where 150 are the variant's own, and what is said of it.
PLUS: tuple[str, Task, int] = ("lrformer_t_plus", "segment", 19)
OF_PLUS = "this is lrformer_t with a mask2former head: use lrformer_t_plus with"


@pytest.mark.parametrize("file", OFFICIAL)
def test_the_authors_own_names_are_recognised(tmp_path: Path, file: str) -> None:
    name = file.removesuffix("_seg").removesuffix("_backbone")
    spec = recognise_spec(official(file, tmp_path)).spec
    tasks: dict[str, tuple[Task, int]] = {"_seg": ("segment", spec.num_classes), "_backbone": ("features", 0)}
    tasks["_plus"] = ("segment", 150)
    task, classes = next((value for end, value in tasks.items() if file.endswith(end)), ("classify", 1000))
    assert (spec.name, spec.task, spec.num_classes, spec.overrides) == (name, task, classes, ())
    assert spec.imgsz == MODELS[name].imgsz[task]
    assert task != "segment" or spec.num_classes in (19, 150)


@pytest.mark.parametrize(
    ("name", "task", "classes", "head"),
    [
        ("hrvit_b1", "segment", 7, None),
        ("hrvit_b2", "segment", 150, "upernet"),
        ("hrvit_b1", "classify", 11, None),
        ("hrvit_nano", "features", None, None),
        ("lrformer_s", "segment", 150, None),
        ("lrformer_t", "classify", 3, None),
        ("lrformer_xl", "features", None, None),
        ("lrformer_t_plus", "segment", 19, None),
        ("lrformer_xl_plus", "segment", 150, None),
        ("mixformer_b1", "classify", 2, None),
        ("mixformer_b2", "segment", 21, None),
        ("hiri_vit_s", "classify", 1000, None),
        ("hiri_vit_b", "classify", 10, "linear"),
        ("hiri_vit_s", "segment", 19, None),
    ],
)
def test_every_family_task_and_head_is_recognised(
    saved: Saver, name: str, task: Task, classes: int | None, head: str | None
) -> None:
    asked = recognise_spec(saved(name, task, classes, head, wrap="module."))
    spec = asked.spec
    assert (spec.name, spec.task, spec.num_classes) == (name, task, classes or 0)
    assert spec.overrides == ((("head", head),) if head else ())
    [note] = asked.notes
    assert note.startswith(f"my.pth is recognised as {name} for {task}")
    assert ("windows cannot be seen in a file" in note) == (MODELS[name].family == "hrvit")


def test_a_file_stands_for_the_model_its_head_and_its_weights(tmp_path: Path) -> None:
    model: Any = create_model("hrvit_nano", num_classes=4, imgsz=64, seed=3)
    torch.save(model.state_dict(), tmp_path / "my.pth")
    again: Any = create_model(str(tmp_path / "my.pth"), imgsz=64)
    assert again.spec == model.spec
    assert isinstance(again.loaded, LoadReport)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_what_is_given_has_the_say(saved: Saver) -> None:
    path = saved("hrvit_b1", "segment", 5)
    spec = recognise_spec(path, imgsz=(64, 96), windows=(1, 2, 9, 9)).spec
    assert (spec.imgsz, spec.num_classes, spec.overrides) == ((64, 96), 5, (("windows", (1, 2, 9, 9)),))
    assert "cannot be seen" not in recognise_spec(path, windows=(1, 2, 9, 9)).notes[0]
    assert recognise_spec(path, task="features").spec.task == "features"
    with pytest.raises(HiresvitError, match="trained with 5 classes, the model has 9: pass --num-classes 5"):
        create_model(str(path), imgsz=64, num_classes=9)


def test_a_file_without_a_head_gives_features_unless_a_head_is_to_be_drawn(saved: Saver) -> None:
    path = saved("hrvit_b1", "features", wrap="backbone.")
    assert recognise_spec(path).spec.task == "features"
    assert recognise_spec(path, allow_missing_head=True).spec.task == "segment"
    assert recognise_spec(path, allow_missing_head=True, task="classify", num_classes=3).spec.num_classes == 3


def test_two_heads_are_listed_with_what_to_type(tmp_path: Path, saved: Saver) -> None:
    state = blank(build_empty("hrvit_b1", "segment", 19, {}))
    classifier = blank(build_empty("hrvit_b1", "classify", 7, {}))
    both = state | {key: value for key, value in classifier.items() if key.startswith("head.")}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(UsageError) as error:
        recognise_spec(tmp_path / "both.pth")
    assert "hrvit_b1 for segment, 19 classes or hrvit_b1 for classify, 7 classes" in str(error.value)
    assert str(error.value).endswith("give --task segment or --task classify")
    spec = recognise_spec(tmp_path / "both.pth", task="classify").spec
    assert (spec.task, spec.num_classes) == ("classify", 7)


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (("hrvit_b1", "classify", 7), ("hrvit_b1", "segment"), "this looks like hrvit_b1 with --task classify --num-"),
        (("hrvit_b1", "segment", 7), ("hrvit_b1", "classify"), "hrvit_b1 with --task segment --num-classes 7"),
        (("hrvit_b1", "segment", 7), ("hrvit_b2", "segment"), "looks like hrvit_b1; ask for that with --num-classes 7"),
        (("hrvit_b1", "segment", 19), ("hrvit_nano", "segment"), "looks like hrvit_b1; ask for that$"),
        (("hrvit_b1", "segment", 19, "upernet"), ("hrvit_b1", "segment"), "hrvit_b1 with --set head=upernet$"),
        (("mixformer_b1", "classify", 5), ("mixformer_b1", "segment"), "--task classify --num-classes 5"),
        (("lrformer_t", "classify", 5), ("lrformer_t", "segment"), "--task classify --num-classes 5"),
        (("hiri_vit_s", "classify", 9, "linear"), ("hiri_vit_s", "classify"), "--num-classes 9 --set head=linear$"),
        (("lrformer_t", "features"), ("lrformer_t", "classify"), "lrformer_t with --task features, or use"),
        (PLUS, ("lrformer_t", "segment"), f"nothing was loaded: .*292 unexpected .*{OF_PLUS} --num-classes 19$"),
        (PLUS, ("lrformer_t", "classify"), f"has no classification head .*{OF_PLUS} --task segment --num-classes 19"),
        (PLUS, ("lrformer_s_plus", "masks"), "this looks like lrformer_t_plus; ask for that with --num-classes 19$"),
        (PLUS, ("lrformer_t_plus", "segment"), "trained with 19 classes, the model has 150: pass --num-classes 19$"),
        (PLUS, ("lrformer_t_plus", "masks"), "trained with 19 classes, the model has 150: pass --num-classes 19$"),
        (PLUS, ("hrvit_b1", "segment"), "this looks like lrformer_t_plus; ask for that with --num-classes 19$"),
        (("lrformer_t", "segment", 19), ("lrformer_t_plus", "segment"), "its own head: use lrformer_t with --num-cl"),
        (
            ("lrformer_t", "features"),
            ("lrformer_t_plus", "segment"),
            "no segmentation head .*lrformer_t without a head",
        ),
    ],
)
def test_a_name_that_contradicts_the_file_says_what_to_type(
    saved: Saver, given: tuple[Any, ...], asked: tuple[str, Task], said: str
) -> None:
    with pytest.raises(HiresvitError, match=said):
        create_model(*asked, imgsz=(64, 64), weights=saved(*given))


def grafted(tmp_path: Path, body: str, head: tuple[str, Task, int, Mapping[str, Any]], prefix: str = "") -> Path:
    """One model's backbone with another's segmentation head."""
    state = blank(build_empty(body, "features", None, {}))
    other = {key: value for key, value in blank(build_empty(*head)).items() if key.startswith("decode_head.")}
    torch.save({f"backbone.{key}": value for key, value in state.items()} | other, tmp_path / "my.pth")
    return tmp_path / "my.pth"


@pytest.mark.parametrize("kind", ["segformer", "upernet"])
def test_a_head_of_another_kind_is_named(tmp_path: Path, kind: str) -> None:
    path = grafted(tmp_path, "lrformer_t", ("hrvit_b1", "segment", 19, {"head": kind}))
    whose = {"segformer": "SegFormer's", "upernet": "UPerNet's"}[kind]
    for name in ("lrformer_t", "lrformer_t_plus"):
        with pytest.raises(HiresvitError, match=f"its segmentation head is {whose}, which {name} does not take$"):
            create_model(name, "segment", 64, weights=path)


def test_masks_on_another_backbone_are_named(tmp_path: Path) -> None:
    path = grafted(tmp_path, "hrvit_b1", ("lrformer_t_plus", "segment", 19, {}))
    with pytest.raises(HiresvitError, match=r"head is Mask2Former's, which hrvit_b1 does not take$"):
        create_model("hrvit_b1", "segment", 64, weights=path)


def test_of_variants_with_one_backbone_the_head_decides(tmp_path: Path, saved: Saver) -> None:
    """A head with 200 queries is nobody's; it is said to be of the variant that it has most of."""
    path = saved(*PLUS)
    assert [(one.name, one.task) for one in find(path)] == [("lrformer_t_plus", "segment")]
    masks = recognise_spec(path, task="masks").spec
    assert (masks.name, masks.task, masks.num_classes) == ("lrformer_t_plus", "masks", 19)
    features = recognise_spec(path, task="features").spec
    assert (features.name, features.task) == ("lrformer_t", "features")
    assert "postprocess" not in recognise_spec(path).notes[0]
    state = blank(build_empty("lrformer_t_plus", "segment", 19, {}))
    state["decode_head.query_feat.weight"] = torch.zeros(200, 256)
    torch.save(state, tmp_path / "wide.pth")
    assert [(one.name, one.num_classes) for one in find(tmp_path / "wide.pth")] == [("lrformer_t_plus", 19)]
    # XL has no head of its own: one of another kind leaves features.
    path = grafted(tmp_path, "lrformer_xl", ("lrformer_t", "segment", 19, {}))
    assert [(one.name, one.task) for one in find(path)] == [("lrformer_xl", "features")]


def find(path: Path) -> tuple[Candidate, ...]:
    return find_candidates(path, read_checkpoint(path), build_empty)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "upernet"}, "head='upernet': give mask2former, or leave it out for the head that lrformer_t has"),
        ({"postprocess": "fast"}, "lrformer_t has no argument postprocess"),
        ({"head": "mask2former", "postprocess": "often"}, "postprocess='often': choose exact or fast"),
        ({"head": "mask2former", "imgsz": (500, 512)}, "500x512: LRFormer takes multiples of 32 on both sides"),
        ({"head": "mask2former", "task": "masks", "postprocess": "fast"}, "postprocess makes labels of masks"),
    ],
)
def test_what_is_asked_of_the_head_of_masks(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        model_spec("lrformer_t", **options)
    assert model_spec("lrformer_t", head="mask2former") == model_spec("lrformer_t_plus")


def test_a_file_that_is_given_another_task_says_so_too(saved: Saver) -> None:
    path = saved("hrvit_b1", "classify", 7)
    with pytest.raises(HiresvitError, match=r"has no segmentation head .*--task classify --num-classes 7, or use"):
        create_model(str(path), "segment", imgsz=64)


def test_a_file_of_nothing_we_have_names_what_is_nearest(tmp_path: Path) -> None:
    state = blank(build_empty("hrvit_b1", "classify", 10, {}))
    del state["stem.conv1.weight"]
    torch.save(state | {"neck.a": torch.ones(1)}, tmp_path / "my.pth")
    with pytest.raises(HiresvitError, match=r"of none of the 24 models; nearest is hrvit_b1, .*1 missing \(stem.conv1"):
        recognise_spec(tmp_path / "my.pth")
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(HiresvitError, match="of none of the 24 models"):
        recognise_spec(tmp_path / "other.pth")


def test_a_head_of_no_classes_is_no_crash(tmp_path: Path) -> None:
    """A file may say anything of its shapes."""
    state: dict[str, Tensor] = blank(build_empty("hrvit_b1", "classify", 10, {}))
    state["head.classifier.weight"] = torch.zeros(2**40, 0)
    torch.save(state, tmp_path / "my.pth")
    with pytest.raises(HiresvitError, match="does not fit the model"):
        create_model(str(tmp_path / "my.pth"), imgsz=64)


def test_which_texts_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1)}, tmp_path / "epoch_12")
    (tmp_path / "notes").write_text("notes")
    (tmp_path / "hrvit_b1").write_text("a file of a model's name")
    assert [names_checkpoint(text) for text in ("my.pth", "a/b.safetensors", "x.PDPARAMS", "epoch_12")] == [True] * 4
    others = ("hrvit_b1", "hrvit_b9", "fp16.onnx", "a.plan", "notes", ".", "\0", "x" * 5000)
    assert [text for text in others if names_checkpoint(text)] == []


def test_weights_beside_a_file_and_options_without_one_are_refused(saved: Saver) -> None:
    path = saved("hrvit_b1", "features")
    with pytest.raises(UsageError, match="is a checkpoint itself: leave out --weights"):
        find_spec(str(path), path)
    with pytest.raises(UsageError, match="--ema is about a checkpoint"):
        find_spec("hrvit_b1", ema=True)
    with pytest.raises(UsageError, match="--allow-missing head is about a checkpoint"):
        find_spec("hrvit_b1", allow_missing_head=True)
    with pytest.raises(HiresvitError, match=r"gone\.pth does not exist"):
        find_spec("gone.pth")


def test_what_convert_wrote_has_its_settings_names_and_what_nobody_trained(tmp_path: Path) -> None:
    model: Any = create_model("hrvit_nano", "features", imgsz=64)
    names = [f"thing {i}" for i in range(4)]
    torch.save({"state_dict": model.state_dict(), "meta": {"CLASSES": names}}, tmp_path / "my.pth")
    spec = find_spec("hrvit_nano", tmp_path / "my.pth", num_classes=4, windows=(1, 2, 9, 9)).spec
    report = convert_weights(spec, tmp_path / "my.pth", tmp_path / "a.safetensors", allow_missing_head=True)
    assert (report.untrained, report.labels) == ("decode_head.* (not in my.pth)", None)
    asked = recognise_spec(tmp_path / "a.safetensors", imgsz=64)
    assert asked.spec.overrides == (("windows", (1, 2, 9, 9)),)
    again: Any = create_model(str(tmp_path / "a.safetensors"), imgsz=64)
    assert again.loaded.untrained == "decode_head.* (not in my.pth)", "the file has the head, and nobody trained it"
    features: Any = create_model(str(tmp_path / "a.safetensors"), "features", imgsz=64)
    assert features.loaded.untrained == ""

    whole: Any = create_model("hrvit_nano", num_classes=4, imgsz=64)
    torch.save({"state_dict": whole.state_dict(), "meta": {"CLASSES": names}}, tmp_path / "my.pth")
    convert_weights(whole.spec, tmp_path / "my.pth", tmp_path / "b.safetensors")
    last: Any = create_model(str(tmp_path / "b.safetensors"), imgsz=64)
    assert (last.loaded.labels.names, last.loaded.labels.source) == (tuple(names), "checkpoint")
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert "hiresvit.untrained" not in file.metadata()


@pytest.mark.parametrize(
    "beside",
    [
        {"meta": {"CLASSES": ("a", "b", "c"), "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}},
        {"meta": {"dataset_meta": {"classes": ("a", "b", "c"), "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}}},
        {"idx_to_class": {0: "a", 1: "b", 2: "c"}},
        {"args": Namespace(class_names=["a", "b", "c"])},
    ],
    ids=["mmseg", "mmengine", "by number", "timm's arguments"],
)
def test_names_beside_the_weights_are_read(tmp_path: Path, beside: dict[str, Any]) -> None:
    model: Any = create_model("hrvit_nano", num_classes=3, imgsz=64)
    torch.save({"state_dict": model.state_dict(), **beside}, tmp_path / "my.pth")
    labels = cast(Any, create_model(str(tmp_path / "my.pth"), imgsz=64)).loaded.labels
    assert (labels.names, labels.source) == (("a", "b", "c"), "checkpoint")
    assert "meta" not in beside or labels.colours.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    features: Any = create_model(str(tmp_path / "my.pth"), "features", imgsz=64)
    assert features.loaded.labels is None
