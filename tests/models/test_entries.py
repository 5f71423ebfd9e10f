"""Which tensors of a file are the model's: wrappers in any order and number, several sets, what lies beside them."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import pathlib
import pickle
import re
import types
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_checkpoint import CLASSIFY, SEGMENT, State, load_weights, module, prefixed, same, saved, tensors
from torch import nn

from hiresvit.errors import HiresvitError
from hiresvit.models.weights.file import read_checkpoint

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "_forward_module.", "_fsdp_wrapped_module.", "student.")
ENTRIES = ("state_dict", "model", "model_state_dict", "net", "weights", "params", "module", "generator", "my_own_name")


@pytest.mark.parametrize("entry", ["", *ENTRIES])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_wrappers_in_any_order_and_number(tmp_path: Path, entry: str, depth: int) -> None:
    state = tensors(SEGMENT)
    orders = list(itertools.permutations(PREFIXES, depth))
    for order in orders[:: max(1, len(orders) // 6)]:
        content: Any = prefixed(state, "".join(order))
        content = {entry: content, "epoch": 3} if entry else content
        model = module(SEGMENT)
        load_weights(model, saved(tmp_path, content), task="segment")
        assert same(model, state), (entry, order)


def test_two_levels_down_and_a_name_that_nobody_knows(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    for content in (
        {"run": {"best": state, "score": 0.5}},
        [state, {"epoch": 3}],
        (3, {"whatever": prefixed(state, "wrapped_by_me.module.")}),
        list(state.items()),
        {"a": {"b": {"c": {"d": state}}}},
    ):
        found = read_checkpoint(saved(tmp_path, content)).tensors
        assert found.keys() == state.keys(), content


def test_a_wrapper_in_the_middle_of_a_name(tmp_path: Path) -> None:
    state = {key.replace("backbone.", "backbone._orig_mod.module."): value for key, value in tensors(SEGMENT).items()}
    assert read_checkpoint(saved(tmp_path, prefixed(state, "module."))).tensors.keys() == SEGMENT.keys()


def test_names_of_models_are_no_wrappers(tmp_path: Path) -> None:
    """A backbone alone, or in a dict of its own beside its head's, keeps its name."""
    state = tensors(SEGMENT)
    parts = {
        part: {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(part)}
        for part in ("backbone", "decode_head")
    }
    assert read_checkpoint(saved(tmp_path, parts)).tensors.keys() == state.keys()
    alone = {key: value for key, value in state.items() if key.startswith("backbone.")}
    assert read_checkpoint(saved(tmp_path, alone)).tensors.keys() == alone.keys()


def test_a_head_beside_the_wrapped_backbone_is_kept(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    content = {key if key.startswith("head.") else f"model.{key}": value for key, value in state.items()}
    assert read_checkpoint(saved(tmp_path, content)).tensors.keys() == state.keys()


EXTRAS: State = {
    "criterion.weight": torch.ones(10),
    "data_preprocessor.mean": torch.ones(3, 1, 1),
    "data_preprocessor.std": torch.ones(3, 1, 1),
    "total_ops": torch.zeros(1),
    "stem.total_params": torch.zeros(1),
    "val_acc.correct": torch.tensor(3),
}


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_harmless_extras_are_left_out_by_name(tmp_path: Path, prefix: str) -> None:
    state = tensors(CLASSIFY)
    inside = prefixed({**state, **EXTRAS}, prefix)
    beside = {**prefixed(state, prefix), **EXTRAS}
    for content in (inside, beside, {"state_dict": inside}, {"state_dict": beside}):
        path = saved(tmp_path, content)
        model = module(CLASSIFY)
        report = load_weights(model, path, task="classify")
        assert same(model, state)
        said = " ".join(report.notes)
        assert all(name in said for name in ("criterion.*", "data_preprocessor.*", "total_ops"))


def test_what_is_no_extra_stays_an_error(tmp_path: Path) -> None:
    with pytest.raises(HiresvitError, match=r"1 unexpected \(adapter.weight\)"):
        load_weights(
            module(CLASSIFY), saved(tmp_path, {**tensors(CLASSIFY), "adapter.weight": torch.ones(1)}), task="classify"
        )


@pytest.mark.parametrize(
    ("plain", "average"),
    [
        ("model", "model_ema"),
        ("params", "params_ema"),
        ("net", "ema"),
        ("state_dict", "state_dict_ema"),
        ("model", "ema_state_dict"),
        ("state_dict", "averaged_model"),
        ("weights", "swa_model"),
    ],
)
def test_averages_are_known_said_and_chosen(tmp_path: Path, plain: str, average: str) -> None:
    one, other = tensors(CLASSIFY, 1), tensors(CLASSIFY, 2)
    for content in ({plain: one, average: other}, {average: prefixed(other, "module."), plain: one}):
        path = saved(tmp_path, content)
        found = read_checkpoint(path)
        assert (found.source, found.notes) == (plain, ("the file has EMA weights too: --ema loads them",))
        assert torch.equal(found.tensors["stem.conv1.weight"], one["stem.conv1.weight"])
        found = read_checkpoint(path, ema=True)
        assert (found.source, found.notes) == (average, ())
        assert torch.equal(found.tensors["stem.conv1.weight"], other["stem.conv1.weight"])
    found = read_checkpoint(saved(tmp_path, {average: other}))
    assert found.notes == ("the file has only EMA weights",)


def test_an_average_of_parameters_only_takes_the_buffers_beside_it(tmp_path: Path) -> None:
    one, other = tensors(CLASSIFY, 1), tensors(CLASSIFY, 2)
    shadow = {key: value for key, value in other.items() if "running" not in key and "tracked" not in key}
    path = saved(tmp_path, {"model": one, "ema": {"shadow": shadow, "decay": 0.9}})
    found = read_checkpoint(path, ema=True)
    assert found.tensors.keys() == one.keys()
    assert torch.equal(found.tensors["stem.bn1.running_mean"], one["stem.bn1.running_mean"])
    assert torch.equal(found.tensors["stem.conv1.weight"], other["stem.conv1.weight"])
    assert any(note.startswith("2 tensors that are not averaged come from the weights beside") for note in found.notes)


def test_several_sets_are_listed_and_one_is_asked_for(tmp_path: Path) -> None:
    one, other = tensors(CLASSIFY, 1), tensors(CLASSIFY, 2)
    for content in (
        {"student": one, "teacher": other},
        {"state_dict": {**prefixed(one, "student."), **prefixed(other, "teacher.")}},
    ):
        path = saved(tmp_path, content)
        with pytest.raises(HiresvitError, match=r"student \(7 tensors\), teacher \(7 tensors\): choose one with") as no:
            read_checkpoint(path)
        entry = str(no.value).rpartition(" ")[2].replace("student", "teacher")
        found = read_checkpoint(path, entry=entry)
        assert torch.equal(found.tensors["stem.conv1.weight"], other["stem.conv1.weight"])
        with pytest.raises(HiresvitError, match="has no entry pupil; it has"):
            read_checkpoint(path, entry="pupil")


def test_optimisers_and_small_sets_are_no_models(tmp_path: Path) -> None:
    state = tensors(CLASSIFY)
    moments = {key: {"exp_avg": value, "exp_avg_sq": value, "step": torch.tensor(1)} for key, value in state.items()}
    content = {
        "whatever": state,
        "optimizer": {"state": moments},
        "criterion": {"weight": torch.ones(10)},
        "rng_state": torch.zeros(5, dtype=torch.uint8),
        "classes": torch.arange(3),
    }
    found = read_checkpoint(saved(tmp_path, content))
    assert (found.source, found.tensors.keys()) == ("whatever", state.keys())


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class ConfigDict(dict[str, Any]):
    """As mmengine's, addict's and easydict's."""


VALUES: dict[str, object] = {
    "path": pathlib.PurePosixPath("a/b"),
    "here": Path("a"),
    "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "delta": datetime.timedelta(1),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1, 2], maxlen=3),
    "counter": collections.Counter("aab"),
    "chain": collections.ChainMap({"a": 1}),
    "namespace": types.SimpleNamespace(a=1),
    "config": ConfigDict(a=ConfigDict(b=1)),
    "set": {1, 2},
    "frozenset": frozenset("a"),
    "complex": 1j,
    "range": range(3),
    "slice": slice(1),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 2),
    "uuid": uuid.UUID(int=1),
    "pattern": re.compile("a+"),
    "enum": Colour.RED,
    "tuple": Point(1, 2),
    "partial": functools.partial(int, base=2),
    "class": nn.Linear,
    "function": nn.functional.gelu,
    "method": np.ones(2).sum,
    "number": np.float32(0.5),
    "array": np.ones((2, 2)),
    "objects": np.array([None, "a"], dtype=object),
    "dtype": np.dtype("f4"),
    "random": np.random.RandomState(0),
    "generator": np.random.default_rng(0),
    "size": torch.Size([1, 2]),
    "device": torch.device("cpu"),
    "torch_dtype": torch.float16,
    "huge": 10**50,
    "nan": float("nan"),
    "tuple_keys": {(1, "a"): 2},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", VALUES)
def test_plain_values_beside_the_weights_are_inert(tmp_path: Path, name: str, protocol: int) -> None:
    state = tensors(CLASSIFY)
    content = {"state_dict": state, "extra": VALUES[name]}
    for zipped in (True, False):
        how: dict[str, Any] = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        found = read_checkpoint(saved(tmp_path, content, **how))
        assert found.tensors.keys() == state.keys()
        assert all(torch.equal(found.tensors[key], state[key]) for key in state)


def test_facts_are_plain(tmp_path: Path) -> None:
    content = {
        "model": tensors(CLASSIFY),
        "meta": {"CLASSES": ("road", "sky"), "PALETTE": np.array([[1, 2, 3], [4, 5, 6]], np.uint8)},
        "score": np.float64(0.5),
        "names": collections.deque(["a"]),
        "config": ConfigDict(a=ConfigDict(b=[1, None, "x"])),
        "args": types.SimpleNamespace(lr=0.1, out=Path("a")),
        "seen": {3},
    }
    meta = read_checkpoint(saved(tmp_path, content)).meta
    assert (meta["CLASSES"], meta["PALETTE"]) == (["road", "sky"], [[1, 2, 3], [4, 5, 6]])
    assert (meta["score"], meta["names"], meta["seen"]) == (0.5, ["a"], [3])
    assert meta["config"] == {"a": {"b": [1, None, "x"]}}
    assert meta["args"] == {"lr": 0.1}
    assert "model" not in meta


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_numpy_as_weights(tmp_path: Path, protocol: int) -> None:
    state = tensors(CLASSIFY)
    arrays = {key: value.numpy() for key, value in state.items()}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    for path in (tmp_path / "a.pkl", saved(tmp_path, {"weights": arrays})):
        model = module(CLASSIFY)
        load_weights(model, path, task="classify")
        assert same(model, state)


def make_npz(path: Path) -> None:
    np.savez(path, a=np.ones(1))


def make_npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [(make_npz, "is an .npz archive of numpy's arrays"), (make_npy, "is an .npy array of numpy's")],
)
def test_numpys_own_files_are_named(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "w.npz"
    make(path)
    with pytest.raises(HiresvitError, match=message):
        read_checkpoint(path)
