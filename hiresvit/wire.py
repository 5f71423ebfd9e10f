"""What stands in an ONNX file, read off protobuf's wire format without onnx: nodes, metadata, local functions.

A runtime inlines local functions before it asks. Functions that call functions that call functions can be a graph of
millions of nodes in a kilobyte, and neither ONNX Runtime nor onnx itself counts. The format:
https://protobuf.dev/programming-guides/encoding; the numbers of the fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

MOST_NODES = 1_000_000

_GRAPH, _METADATA, _FUNCTIONS = 7, 14, 25  # of ModelProto
_NODES_OF_GRAPH, _NAME, _NODES_OF_FUNCTION, _DOMAIN_OF_FUNCTION = 1, 1, 7, 10
_OP, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of NodeProto
_ATTRIBUTE_NAME, _TEXT, _BODY, _BODIES = 1, 4, 6, 11  # of AttributeProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_DEEPEST = 40  # of functions and bodies in each other

_Key = tuple[bytes, bytes]
_Part = tuple[int, int]  # where a message begins in the file, and where it ends


def count_nodes(path: Path) -> int | None:
    """How many nodes a graph has when its local functions are inlined; None without any, or if it does not decode.

    `MOST_NODES` and more are no more counted, and functions that call themselves are as many; so is a file of as many
    parts, each of which can be two bytes and takes a hundred when it is decoded. Raises OSError.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        functions: dict[_Key, _Part] = {}
        graphs: list[_Part] = []
        try:
            for count, (number, part) in enumerate(_fields(data, (0, len(data)))):
                if count == MOST_NODES:
                    return MOST_NODES
                if number == _FUNCTIONS:
                    functions.update([_named(data, part)])
                elif number == _GRAPH:
                    graphs.append(part)
            if not functions:
                return None
            counted = _Count(data, functions)
            return min(MOST_NODES, sum(counted.graph(part, 0) for part in graphs))
        except (ValueError, IndexError):
            return None


def nodes_and_metadata(path: Path) -> tuple[list[tuple[str, dict[str, str]]], dict[str, str]]:
    """Operator and attributes that are a text of each node that is in no body, and the file's metadata.

    Nothing of what does not decode. Raises OSError.
    """
    nodes: list[tuple[str, dict[str, str]]] = []
    metadata: dict[str, str] = {}
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        suppress(ValueError, IndexError),
    ):
        for number, part in _fields(data, (0, len(data))):
            if number == _METADATA:
                metadata.update([_entry(data, part, _KEY, _VALUE)])
            elif number == _GRAPH:
                nodes += [_node(data, node) for field, node in _fields(data, part) if field == _NODES_OF_GRAPH]
    return nodes, metadata


def _node(data: mmap.mmap, part: _Part) -> tuple[str, dict[str, str]]:
    operator, texts = "", dict[str, str]()
    for number, value in _fields(data, part):
        if number == _OP:
            operator = data[slice(*value)].decode("utf-8", "replace")
        elif number == _ATTRIBUTE:
            texts.update([_entry(data, value, _ATTRIBUTE_NAME, _TEXT)])
    return operator, texts


def _entry(data: mmap.mmap, part: _Part, *fields: int) -> tuple[str, str]:
    said = {number: data[slice(*value)] for number, value in _fields(data, part) if number in fields}
    key, value = (said.get(number, b"").decode("utf-8", "replace") for number in fields)
    return key, value


class _Count:
    """Nodes of graphs and functions, each function looked at once."""

    def __init__(self, data: mmap.mmap, functions: Mapping[_Key, _Part]) -> None:
        self.data, self.functions = data, functions
        self.known: dict[_Key, int] = {}

    def graph(self, part: _Part, depth: int, field: int = _NODES_OF_GRAPH) -> int:
        total = 0
        for number, node in _fields(self.data, part) if depth < _DEEPEST else ():
            total += self._node(node, depth + 1) if number == field else 0
            if total >= MOST_NODES:
                return total
        return total if depth < _DEEPEST else MOST_NODES

    def _node(self, part: _Part, depth: int) -> int:
        said, total = {_OP: b"", _DOMAIN: b""}, 0
        for number, value in _fields(self.data, part):
            if number in said:
                said[number] = self.data[slice(*value)]
            elif number == _ATTRIBUTE:
                bodies = [body for field, body in _fields(self.data, value) if field in (_BODY, _BODIES)]
                total += sum(self.graph(body, depth) for body in bodies)
        return total + self._called((said[_DOMAIN], said[_OP]), depth)

    def _called(self, key: _Key, depth: int) -> int:
        if key not in self.functions:
            return 1
        if key not in self.known:
            self.known[key] = MOST_NODES  # until it is known: that of one that calls itself
            self.known[key] = self.graph(self.functions[key], depth, _NODES_OF_FUNCTION)
        return self.known[key]


def _named(data: mmap.mmap, function: _Part) -> tuple[_Key, _Part]:
    said = {_NAME: b"", _DOMAIN_OF_FUNCTION: b""}
    said |= {number: data[slice(*value)] for number, value in _fields(data, function) if number in said}
    return (said[_DOMAIN_OF_FUNCTION], said[_NAME]), function


def _fields(data: mmap.mmap, part: _Part) -> Iterator[tuple[int, _Part]]:
    """Number and place of each field that has a length. Raises ValueError or IndexError on what is none."""
    place, end = part
    while place < end:
        tag, place = _varint(data, place)
        match tag & 7:
            case 0:
                _, place = _varint(data, place)
            case 1:
                place += 8
            case 5:
                place += 4
            case 2:
                length, place = _varint(data, place)
                if place + length > end:
                    raise ValueError("a field is longer than what it is in")
                yield tag >> 3, (place, place + length)
                place += length
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number has more than 64 bits")
