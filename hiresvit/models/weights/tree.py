"""What a file holds as a tree of names, made flat: tensors by path, and the plain facts beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from hiresvit.models.weights.arrays import array_reader, number
from hiresvit.models.weights.inert import Made, Refused
from hiresvit.models.weights.names import Name
from hiresvit.models.weights.stored import Leaf, Stored, parts

MOST_VALUES = 1_000_000
MOST_FACTS = 100_000
MOST_TENSORS = 50_000
LONGEST_NAME, MOST_DOTS = 400, 50
"""Characters of a tensor's path, and the names that it is of: dicts in dicts that are shared make long ones of few."""
DEEPEST = 5
"""Dicts in dicts, down to which tensors are looked for."""
DEEPEST_MODEL = 40

# Dicts of tensors that are no weights.
NO_WEIGHTS = re.compile(r"optim|sched|scaler|callback|loops|rng|hook|history|logger|message_hub", re.IGNORECASE)


@dataclass
class Tree:
    """A file flattened: readers of tensors by path, which paths were dicts, and what else lies where."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    dicts: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether there is a model that was pickled whole, class and all."""


def as_dict(value: Any) -> dict[Any, Any] | None:
    """What ``value`` holds by name: a dict, what was made like one, a list, a whole pickled model; else None."""
    if isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return _listed(value)
    if not isinstance(value, Made):
        return None
    state = value.state
    if isinstance(state, tuple) and len(state) == 2:  # of a class with slots
        state = state[0] or state[1]
    if _is_model(value):
        return _of_module(state)
    if value.pairs:
        return value.pairs
    if value.args and isinstance(value.args[0], (list, tuple, dict)) and _dict_like(value.maker):
        return as_dict(value.args[0])
    if isinstance(state, dict) and str(value.maker) != "collections.OrderedDict":
        return state
    return {} if _dict_like(value.maker) else None


def _dict_like(maker: Name) -> bool:
    return maker.name.lower().endswith("dict")


def _listed(value: list[Any] | tuple[Any, ...]) -> dict[Any, Any] | None:
    """A list of (name, value) pairs, or of dicts, by name or by number."""
    pairs = [item for item in value if isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)]
    if value and len(pairs) == len(value):
        return {item[0]: item[1] for item in pairs}
    return {str(place): item for place, item in enumerate(value) if _has_names(item)} or None


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, Made) and bool(value.pairs or isinstance(value.state, dict)))


def _of_module(state: dict[Any, Any]) -> dict[Any, Any]:
    """The state dict of a model that was pickled whole, one level of it."""
    found: dict[Any, Any] = {}
    for kind in ("_parameters", "_buffers", "_modules"):
        found |= as_dict(state.get(kind)) or {}
    silent = state.get("_non_persistent_buffers_set")
    for name in (silent.listed or (silent.args or ((),))[0] or ()) if isinstance(silent, Made) else ():
        found.pop(name, None)
    return {name: value for name, value in found.items() if value is not None}


class _Budget:
    """How many values may still be looked at: one dict can be in a file a thousand times in one that is, too."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> bool:
        """Whether there is enough left to look into what holds so many."""
        self.left -= 1 + count
        return self.left >= 0


def _size(value: Any) -> int:
    if isinstance(value, (dict, list, tuple)):
        return len(value)
    if not isinstance(value, Made):
        return 0
    inside: Iterable[Any] = (value.state, value.pairs, value.listed, *value.args[:1])
    return sum(len(part) for part in inside if isinstance(part, (dict, list, tuple)))


def flatten(stored: Stored) -> Tree:
    """Every tensor that can be reached by names. Raises Refused for names that none of a model's can be."""
    walk = _Walk(stored)
    walk.into(stored.content, "", 0)
    return walk.tree


class _Walk:
    """Through a file, down to its tensors."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.tree = Tree()
        self.budget = _Budget(MOST_VALUES)

    def into(self, value: Any, prefix: str, depth: int) -> None:
        """Enter into the tree what ``value`` holds by names, below ``prefix``."""
        if not self.budget.spend(_size(value)):
            raise Refused(f"holds more than {MOST_VALUES:,} values, as no checkpoint does")
        model = _is_model(value)
        self.tree.whole |= model
        for key, item in (as_dict(value) or {}).items():
            reader = self.stored.leaf(item)
            if not isinstance(key, str) or not _names(prefix, key):
                if reader and not NO_WEIGHTS.search(prefix):
                    raise Refused(f"holds a tensor under {ascii(key)[:40]}, which is not a tensor's name")
                continue
            path = prefix + key
            if path in self.tree.leaves:
                raise Refused(f"has {path} twice")
            if reader:
                self.tree.leaves[path] = reader
                if len(self.tree.leaves) > MOST_TENSORS:
                    raise Refused(f"holds more than {MOST_TENSORS:,} tensors, as no checkpoint does")
            elif not self._descended(item, path, depth, model):
                self.tree.others[path] = kind_of(item)

    def _descended(self, item: Any, path: str, depth: int, model: bool) -> bool:
        """Whether there were tensors in what lies at ``path``, which are in the tree then."""
        if NO_WEIGHTS.search(path.rpartition(".")[2]) or depth >= (DEEPEST_MODEL if model else DEEPEST):
            return False
        if not isinstance(item, (dict, list, tuple, Made)) or _is_record(item):
            return False
        before = len(self.tree.leaves)
        self.into(item, f"{path}.", depth + 1)
        if len(self.tree.leaves) == before:
            return False
        if not model:  # a part of a model is no entry of a file
            self.tree.dicts.add(path)
        return True


def _names(prefix: str, key: str) -> bool:
    """Whether a key can be a part of a tensor's path."""
    short = len(prefix) + len(key) <= LONGEST_NAME and prefix.count(".") + key.count(".") <= MOST_DOTS
    return short and key.isprintable()


def _is_record(value: Any) -> bool:
    """Whether it is an object with attributes, and no model: what those hold are facts."""
    return (
        isinstance(value, Made)
        and not value.pairs
        and isinstance(value.state, dict)
        and not _is_model(value)
        and (not _dict_like(value.maker))
    )


def _is_model(value: Any) -> bool:
    return (
        isinstance(value, Made) and isinstance(value.state, dict) and {"_modules", "_parameters"} <= value.state.keys()
    )


def nothing(stored: Stored) -> str:
    """What a file holds in which no tensor has a name, to stand after its name."""
    content = as_dict(stored.content)
    if not isinstance(stored.content, (dict, Made)) or content is None:
        return f"holds a {kind_of(stored.content)}, not a dict of tensors"
    held = _first(content, lambda key, item: f"{ascii(key)[:40]} ({_described(item)})")
    if any_tensor(stored):
        return f"holds no tensors under the names of a model's, only {held}"
    return f"holds no tensors, {f'only {held}' if held else 'it is empty'}"


def _described(value: Any) -> str:
    """What a value is, and of a dict what it holds."""
    inside = value if isinstance(value, dict) else value.pairs if isinstance(value, Made) else None
    if inside is None:
        return kind_of(value)
    return f"dict of {_first(inside, lambda key, _: ascii(key)[:40])}" if inside else "empty dict"


def _first(held: Mapping[Any, Any], said: Callable[[Any, Any], str]) -> str:
    """`some` of a dict that may be very long."""
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    return ", ".join(said(key, item) for key, item in islice(held.items(), 3)) + more


def any_tensor(stored: Stored) -> bool:
    """Whether there is a tensor anywhere in a file."""
    seen: set[int] = set()
    todo = [stored.content]
    while todo:
        value = todo.pop()
        if id(value) in seen or not isinstance(value, (dict, list, tuple, Made)):
            continue
        seen.add(id(value))
        if stored.leaf(value):
            return True
        todo += parts(value)
    return False


def facts(content: Any, tree: Tree) -> dict[str, Any]:
    """What lies beside the weights, as plain values; what is in ``meta`` is lifted up to the rest."""
    budget = _Budget(MOST_FACTS)
    found: dict[str, Any] = {}
    top = as_dict(content) or {}
    for source in (top, as_dict(top.get("meta")) or {}):
        for key, value in source.items():
            if not isinstance(key, str) or key in tree.leaves or key in tree.dicts:
                continue
            if (plain := _plain(value, budget, 6)) is not None:
                found[key] = plain
    return found


def _plain(value: Any, budget: _Budget, depth: int) -> Any:
    """The value as str, int, float, bool, list and dict; None for anything else, or where there is too much of it."""
    if not budget.spend(_size(value)) or depth < 0:
        return None
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Made):
        if (single := number(value)) is not None:
            return single
        if value.listed is not None and not value.pairs:  # a set, a deque
            value = value.listed
        elif array := array_reader(value):
            try:
                made = array()
            except Refused:
                return None
            return made.tolist() if made.size <= 10_000 and budget.spend(made.size) else None
        elif len(value.args) == 1 and value.maker.name in ("list", "tuple", "set", "frozenset", "deque"):
            value = value.args[0]
    if isinstance(value, (list, tuple)):
        return [_plain(item, budget, depth - 1) for item in value]
    inside = as_dict(value)
    if not inside:
        return None if inside is None else {}
    # numbers as JSON has them: what classes are called may stand by theirs
    named = ((str(key), item) for key, item in inside.items() if isinstance(key, str) or key in range(10_000))
    pairs = ((key, _plain(item, budget, depth - 1)) for key, item in named)
    return {key: item for key, item in pairs if item is not None}


def kind_of(value: Any) -> str:
    """What to call a value."""
    if isinstance(value, Made):
        if str(value.maker).startswith("torch._utils._rebuild_"):
            return "tensor"
        return "numpy array" if array_reader(value) else str(value.maker).removeprefix("builtins.")
    return "class" if isinstance(value, Name) else type(value).__name__


def some(names: list[str]) -> str:
    """The first three names of a list that may be long, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
