"""Which of a file's tensors are the model's: entries, wrappers' prefixes, averaged copies, and what lies beside them.

A file is a tree of dicts; here it is flat, with paths such as ``state_dict.module.stem.weight``, so that a dict in a
dict and a prefix of all keys are one thing. From the root down, what only wraps is taken off, whatever it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hiresvit.errors import HiresvitError
from hiresvit.models.weights.paddle import NAME_TABLE
from hiresvit.models.weights.stored import Leaf
from hiresvit.models.weights.tree import Tree, some

# The official loader's order: the first that is there wins.
ENTRIES = ("state_dict", "model")
ONLY_AVERAGE = "the file has only EMA weights"

# Parts of the models of every task: what is named so is never a wrapper.
_PARTS = frozenset({"backbone", "decode_head", "auxiliary_head", "head"})
# What trainers and wrappers call the model. Any other name is taken for a wrapper where all keys begin with it.
_WRAPPERS = re.compile(
    r"module|model|net|network|(model_)?state(_dict)?|weights|params|parameters|student|teacher|(base|online|target)_model"
    r"|((online|target)_)?encoder|segment[eo]r|classifier|generator|discriminator|architecture|algorithm"
    r"|_orig_mod|_forward_module|_fsdp_wrapped_module"
)
_AVERAGE = re.compile(r"(^|[._-])(ema|swa|averaged?)([._-]|\d|$)|(^|[._-])shadow", re.IGNORECASE)
# Wrappers that come in the middle of a name.
_INNER = re.compile(
    r"(?<![^.])(module\.)*(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.(module\.)*"
)
# What trainers keep inside of a state dict, or of a model, and is none of it: losses, counters, input statistics.
_EXTRA = re.compile(
    r"criteri(on|a)|loss(es|_fn|_func|_function)?|metrics?|data_preprocessor|n_averaged|steps?|initted|num_updates|decay"
    r"|collected_params|(train|val|valid|test)_(loss|acc|accuracy|metrics?)"
)
_EXTRA_LEAVES = frozenset({"total_ops", "total_params", "_extra_state"})


@dataclass(frozen=True)
class Chosen:
    """Readers of a model's tensors by name, the entry they were in (``""``: the file itself), and what to say."""

    leaves: Mapping[str, Leaf]
    source: str
    notes: tuple[str, ...]


def choose(tree: Tree, *, ema: bool, entry: str | None, swapped: Callable[[str], bool]) -> Chosen:
    """The tensors of one model. Raises HiresvitError without the path in front if that is not clear.

    ``ema`` asks for an averaged copy, ``entry`` for what is under a path. ``swapped`` says of an average, by its path,
    whether the trainer has exchanged it with the trained weights when it saved.
    """
    walk = _Walk(tree, ema, swapped)
    prefix = ""
    if entry is not None:
        prefix = f"{entry.rstrip('.')}."
        if not any(path.startswith(prefix) for path in tree.leaves):
            raise HiresvitError(f"has no entry {entry}; it has {_sets(tree)}")
        walk.source.append(entry.rstrip("."))
        walk.averaged = bool(_AVERAGE.search(entry))
    leaves = walk.down({path.removeprefix(prefix): r for path, r in tree.leaves.items() if path.startswith(prefix)})
    average = _paired(leaves)
    if average:
        leaves = {key: reader for key, reader in leaves.items() if not key.startswith("ema_")}
        leaves = walk.pair(leaves, average)
    if ema and not walk.averaged:
        raise HiresvitError(f"has no EMA weights, only {_sets(tree)}; leave out --ema")
    if ema:
        leaves = _completed(tree, leaves, walk, entry)
    beside = [
        f"{path} ({kind})"
        for path, kind in tree.others.items()
        if path.rpartition(".")[0] == walk.name() and not path.endswith(NAME_TABLE)
    ]
    if beside and not tree.whole:
        walk.notes.append(f"left out, no tensors: {some(beside)}")
    return Chosen(leaves, walk.name(), tuple(walk.notes))


@dataclass
class _Walk:
    """From the root of a file to its model: what was passed, and what there is to say about it."""

    tree: Tree
    ema: bool
    swapped: Callable[[str], bool]
    source: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    averaged: bool = False

    def name(self) -> str:
        return ".".join(self.source)

    def down(self, leaves: dict[str, Leaf]) -> dict[str, Leaf]:
        """Take off what wraps, one name at a time."""
        aside: dict[str, Leaf] = {}
        while True:
            leaves = self._cleaned(leaves)
            groups = _groups(leaves)
            wrappers = {name: keys for name, keys in groups.items() if self._wraps(name)}
            alone = len(groups) == 1 and not groups.keys() & (_PARTS | {""}) and _fork(leaves)
            if not wrappers and not alone:
                break
            wrappers = wrappers or groups
            largest = max(map(len, wrappers.values()))
            if largest * 2 < len(leaves) - sum(map(len, wrappers.values())):
                break  # a part of the model that is called like a wrapper
            chosen = self._which({name: keys for name, keys in wrappers.items() if len(keys) * 2 >= largest})
            others = {name: keys for name, keys in groups.items() if name not in wrappers}
            aside |= {key: leaves[key] for name in others.keys() & _PARTS for key in others[name]}
            if unknown := sorted(others.keys() - _PARTS):
                self.notes.append(f"left out by name: {some([f'{name}.*' if name else 'others' for name in unknown])}")
            leaves = {key[len(chosen) + 1 :]: leaves[key] for key in wrappers[chosen]}
        return {**{key: reader for key, reader in aside.items() if key not in leaves}, **leaves}

    def _wraps(self, name: str) -> bool:
        path = ".".join([*self.source, name])
        return name not in _PARTS and bool(
            _WRAPPERS.fullmatch(name) or _AVERAGE.search(name) or path in self.tree.dicts
        )

    def _cleaned(self, leaves: dict[str, Leaf]) -> dict[str, Leaf]:
        """Without the wrappers in the middle of names, and without what is known to be no part of a model."""
        found: dict[str, Leaf] = {}
        out: set[str] = set()
        for key, reader in leaves.items():
            first, _, rest = key.partition(".")
            name = _INNER.sub("", key)
            if _EXTRA.fullmatch(first) or key.rpartition(".")[2] in _EXTRA_LEAVES:
                out.add(f"{first}.*" if _EXTRA.fullmatch(first) and rest else key.rpartition(".")[2])
                if first == "n_averaged":
                    self.averaged = True
                    self.notes.append("these are averaged weights (n_averaged is with them)")
            elif name in found:
                raise HiresvitError(f"has {name} twice, with and without a wrapper's prefix: two models in one")
            else:
                found[name] = reader
        if out and found:
            self.notes.append(f"left out by name: {some(sorted(out))}")
        return found or leaves

    def _which(self, sets: dict[str, list[str]]) -> str:
        """The set to take: the averaged one or the other, and by the official order; else it must be asked for."""
        swap = {name for name in sets if self.swapped(".".join([*self.source, name]))}
        averages = [name for name in sets if name not in swap and (swap or _AVERAGE.search(name))]
        plain = [name for name in sets if name not in averages]
        wanted = averages if self.ema and averages else plain or averages
        if swap and not self.ema:
            wanted = averages  # as the trainer's own loader does
        chosen = next((name for name in ENTRIES if name in wanted), None) or wanted[0]
        if len(wanted) > 1 and chosen not in ENTRIES:
            shown = some([f"{name} ({len(sets[name])} tensors)" for name in wanted])
            raise HiresvitError(f"holds several sets of weights, {shown}: choose one with --entry {self._path(chosen)}")
        if averages and plain:  # what a level above was called counts no more
            self.averaged = False
            self.notes = [note for note in self.notes if note != ONLY_AVERAGE]
        self._say(chosen, averages, [name for name in plain if name != chosen], swap)
        self.averaged |= chosen in averages
        if len(sets) > 1 or ".".join([*self.source, chosen]) in self.tree.dicts:
            self.source.append(chosen)
        return chosen

    def _say(self, chosen: str, averages: list[str], plain: list[str], swap: set[str]) -> None:
        if swap:
            trained = next(iter(swap))
            self.notes.append(
                f"{chosen} holds the EMA weights, which the trainer put there when it saved; the weights as trained are"
                f" in {trained}: --entry {self._path(trained)}"
            )
        elif chosen in averages:
            if not self.ema:
                self.notes.append(ONLY_AVERAGE)
        elif averages:
            self.notes.append("the file has EMA weights too: --ema loads them")
        if plain and not swap and chosen not in averages:
            self.notes.append(f"the file has other weights, too: {some(plain)}; --entry {self._path(plain[0])}")

    def _path(self, name: str) -> str:
        return ".".join([*self.source, name])

    def pair(self, leaves: dict[str, Leaf], average: dict[str, Leaf]) -> dict[str, Leaf]:
        """Of a file of mmcv's EMAHook, which keeps the second set as buffers of the model: the set that is wanted."""
        if self.swapped("ema_"):
            self.averaged = True
            self.notes.append("mmcv's EMAHook exchanged the sets when it saved: what is loaded is the EMA weights")
        elif self.ema:
            self.averaged = True
            self.notes.append("the EMA weights are the file's ema_* buffers, by mmcv's EMAHook")
            return {**leaves, **average}
        else:
            self.notes.append("the file has EMA weights too (ema_* buffers, by mmcv's EMAHook): --ema loads them")
        return leaves


def _groups(leaves: Mapping[str, Leaf]) -> dict[str, list[str]]:
    """The keys by what is before their first dot; those without a dot are under ""."""
    groups: dict[str, list[str]] = {}
    for key in leaves:
        first, dot, _ = key.partition(".")
        groups.setdefault(first if dot else "", []).append(key)
    return groups


def _fork(leaves: Mapping[str, Leaf]) -> bool:
    """Whether the keys, below what they all begin with, are of several parts, as a model's are."""
    parents = {key[: key.rfind(".") + 1] for key in leaves}
    longest = max(parents, key=len)
    return not all(longest.startswith(parent) for parent in parents)


def _paired(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The averages that mmcv keeps as ``ema_backbone_stem_weight`` beside ``backbone.stem.weight``, by the latter."""
    names = {f"ema_{key.replace('.', '_')}": key for key in leaves}
    return {names[key]: reader for key, reader in leaves.items() if key in names}


def _completed(tree: Tree, leaves: dict[str, Leaf], walk: _Walk, entry: str | None) -> dict[str, Leaf]:
    """An average of parameters only, with the buffers of the set that it was made of."""
    if entry is not None:
        return leaves
    try:
        plain = choose(tree, ema=False, entry=None, swapped=walk.swapped).leaves
    except HiresvitError:
        return leaves
    more = [key for key in plain if key not in leaves]
    if not more or not leaves.keys() <= plain.keys():
        return leaves
    walk.notes.append(f"{len(more)} tensors that are not averaged come from the weights beside them ({some(more)})")
    return {**leaves, **{key: plain[key] for key in more}}


def _sets(tree: Tree) -> str:
    """The sets of weights of a file, as they can be asked for."""
    counts = dict.fromkeys(sorted(tree.dicts), 0)
    if not counts:
        counts = {name: len(keys) for name, keys in _groups(tree.leaves).items() if _WRAPPERS.fullmatch(name)}
    else:
        for path in tree.leaves:
            while path := path.rpartition(".")[0]:
                if path in counts:
                    counts[path] += 1
    return some([f"{name} ({count} tensors)" for name, count in counts.items()]) or "one set"
