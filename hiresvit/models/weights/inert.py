"""A pickle read as data: every opcode is interpreted here, and nothing that a file names is looked up or called.

What a file asks to be made becomes a `Made` that keeps the name, the arguments and the state; what only is named a
`Name`. Who reads on takes from them what it knows. Bounded are the opcodes, and so the objects, and what is read at a
time by what is left of the file; keys that could be made to collide are replaced. The opcodes are those of protocols 0
to 5 as the standard library's `pickletools` documents them.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from hiresvit.models.weights.names import Name

# An object of an empty dict, 64 bytes, or an entry of the memo, 100, is the most that one opcode costs.
MOST_OPCODES = 3_000_000
MOST_WIDE_TEXT = 1 << 26  # bytes of UTF-8 that take up to four times as much as a str
MOST_DIGITS = 40
MOST_ARGUMENTS = 8  # of what `copyreg` makes; nobody reads more


class Refused(Exception):  # noqa: N818 (it never leaves this package)
    """What a file asks for or holds and may not, to stand after "it"."""


class Made:
    """What a file wanted made by calling ``maker``: the arguments, the state, and what was put into it afterwards."""

    __slots__ = ("args", "listed", "maker", "pairs", "state")

    def __init__(self, maker: Name, args: tuple[Any, ...] = ()) -> None:
        self.maker = maker
        self.args = args
        self.state: Any = None
        self.listed: list[Any] | None = None
        self.pairs: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.maker}>"


class Persistent:
    """What lies outside of the pickle, by the tuple that says where."""

    __slots__ = ("where",)

    def __init__(self, where: Any) -> None:
        self.where = where


class Source:
    """A part of a file that a pickle is read from: no more is asked of it than there is."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.left = size
        self.size = size

    def read(self, count: int) -> bytes:
        """Exactly so many bytes. Raises EOFError."""
        if not 0 <= count <= self.left:
            raise EOFError
        self.left -= count
        found = self._stream.read(count)
        if len(found) != count:
            raise EOFError
        return found

    def line(self) -> bytes:
        """Up to the next newline, without it. Raises EOFError."""
        found = self._stream.readline(self.left)
        self.left -= len(found)
        if not found.endswith(b"\n"):
            raise EOFError
        return found[:-1]


def read_pickle(source: Source, named: dict[str, Name] | None = None) -> Any:
    """The object of one pickle as plain values, `Name`, `Made` and `Persistent`; into ``named`` what it names.

    Raises Refused for what could run code and for more objects than a checkpoint has, and other exceptions on damage.
    """
    machine = _Machine(source, {} if named is None else named)
    read, operations = source.read, _OPERATIONS
    for _ in range(MOST_OPCODES):
        code = read(1)[0]
        if code == _STOP:
            return machine.stack.pop()
        operations[code](machine)
    raise Refused(f"holds more than {MOST_OPCODES:,} objects, as no checkpoint does")


_STOP = ord(".")
_INT, _SET, _FROZENSET = (Name("builtins", name) for name in ("int", "set", "frozenset"))


class _Machine:
    """The stack and the memo of a pickle; a method for each opcode that does more than push a number."""

    def __init__(self, source: Source, named: dict[str, Name]) -> None:
        self.source = source
        self.named = named
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.wide = 0
        self.encoded = 0

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.source.read(size), "little", signed=signed)

    def long(self, size: int) -> Any:
        data = self.source.read(size)
        return int.from_bytes(data, "little", signed=True) if size <= 16 else Made(_INT)

    def integer(self, line: bytes) -> Any:
        if line in (b"00", b"01"):
            return line == b"01"
        digits = line.rstrip(b"L")
        return int(digits) if len(digits) <= MOST_DIGITS else Made(_INT)

    def place(self) -> int:
        return int(self.source.line()[:MOST_DIGITS])

    def text(self, size: int) -> str:
        data = self.source.read(size)
        if not data.isascii() and max(data) >= 0xC4:  # beyond Latin-1, which is how bytes are written in protocol 2
            self.widen(size)
        return data.decode("utf-8", "surrogatepass")

    def text_line(self) -> str:
        data = self.source.line()
        if b"\\" in data:
            self.widen(len(data))
        return data.decode("raw-unicode-escape")

    def widen(self, size: int) -> None:
        self.wide += size
        if self.wide > MOST_WIDE_TEXT:
            raise Refused(f"holds more than {MOST_WIDE_TEXT >> 20} MiB of text, as no checkpoint does")

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def until_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.marked.pop()
        return found

    def tuple_of(self, count: int) -> None:
        found = tuple(self.stack[-count:])
        if len(found) != count:
            raise IndexError
        self.stack[-count:] = [found]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError
        text = f"{module}.{name}"
        found = self.named.get(text)
        if found is None:
            found = self.named[text] = Name(module, name)
            if found.runs:
                raise Refused(_asks(found))
        return found

    def call(self, maker: Any, args: Any, *, is_class: bool = False) -> Any:
        if not isinstance(maker, Name):
            raise Refused("calls what it made itself, which could run code")
        if not isinstance(args, tuple):
            raise ValueError
        if maker.function and not is_class:
            raise Refused(_asks(maker))
        if maker.module in ("copyreg", "copy_reg") and args and isinstance(args[0], Name):
            return Made(args[0], args[1 : 1 + MOST_ARGUMENTS])  # a copy of what can be there once and be long
        if (maker.module, maker.name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return self.encode(args)
        return Made(maker, args)

    def encode(self, args: tuple[Any, ...]) -> bytes:
        if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
            raise Refused(f"encodes as {ascii(args[1:])[:30]}, as no checkpoint does")
        self.encoded += len(args[0])  # one text can be encoded any number of times
        if self.encoded > self.source.size:
            raise Refused("makes more bytes than the file has")
        return args[0].encode("latin1")

    def build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, Made):
            what = str(made) if isinstance(made, Name) else f"a {type(made).__name__}"
            raise Refused(f"changes {what}, as no checkpoint does")
        made.state = state

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.listed = target.listed or []
            target = target.listed
        if not isinstance(target, list):
            raise TypeError
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Made):
            target.pairs = target.pairs or {}
            target = target.pairs
        if not isinstance(target, dict):
            raise TypeError
        target.update(_pairs(values))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def _key(key: Any) -> Any:
    """The key, if hashing it is quick and its hash cannot be chosen; else an object that stands for it."""
    if type(key) in (str, bytes, bool, float, type(None)) or (type(key) is int and key.bit_length() <= 64):
        return key
    return Made(Name("builtins", type(key).__name__))


def _asks(name: Name) -> str:
    return f"asks for {name}, which is not plain data and could run code"


def _line_text(machine: _Machine) -> str:
    return machine.source.line().decode("utf-8")


def _escaped(machine: _Machine) -> str:
    line = machine.source.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")


def _no_extension(_machine: _Machine) -> None:
    raise Refused("uses numbers for names or buffers from elsewhere, as no checkpoint does")


def _instance(machine: _Machine) -> None:
    name = machine.name(_line_text(machine), _line_text(machine))
    machine.push(machine.call(name, tuple(machine.until_mark())))


def _object(machine: _Machine) -> None:
    maker, *args = machine.until_mark()
    machine.push(machine.call(maker, tuple(args)))


def _reduce(machine: _Machine) -> None:
    args = machine.stack.pop()
    machine.push(machine.call(machine.stack.pop(), args))


def _new_object(machine: _Machine) -> None:
    args = machine.stack.pop()
    machine.push(machine.call(machine.stack.pop(), args, is_class=True))


def _new_object_ex(machine: _Machine) -> None:
    keywords, args = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.call(machine.stack.pop(), (args, keywords), is_class=True))


def _stack_global(machine: _Machine) -> None:
    name = machine.stack.pop()
    machine.push(machine.name(machine.stack.pop(), name))


def _set(maker: Name, values: list[Any]) -> Made:
    made = Made(maker)
    made.listed = values
    return made


def _outside(machine: _Machine) -> None:
    where = machine.stack.pop()
    # Before it took to zip PyTorch wrote a class of a model so, with its source text.
    is_class = isinstance(where, tuple) and where[:1] == ("module",) and isinstance(where[1], Name)
    machine.push(where[1] if is_class else Persistent(where))


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.until_mark()


_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    ord(code): operation
    for code, operation in {
        "\x80": lambda m: m.number(1),
        "\x95": lambda m: m.number(8),
        "(": _Machine.mark,
        "0": _pop,
        "1": _Machine.until_mark,
        "2": lambda m: m.push(m.stack[-1]),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": lambda m: m.push(m.integer(m.source.line())),
        "J": lambda m: m.push(m.number(4, True)),
        "K": lambda m: m.push(m.number(1)),
        "M": lambda m: m.push(m.number(2)),
        "L": lambda m: m.push(m.integer(m.source.line())),
        "\x8a": lambda m: m.push(m.long(m.number(1))),
        "\x8b": lambda m: m.push(m.long(m.number(4))),
        "F": lambda m: m.push(float(m.source.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.source.read(8))[0]),
        "S": lambda m: m.push(_escaped(m)),
        "T": lambda m: m.push(m.source.read(m.number(4)).decode("latin1")),
        "U": lambda m: m.push(m.source.read(m.number(1)).decode("latin1")),
        "B": lambda m: m.push(m.source.read(m.number(4))),
        "C": lambda m: m.push(m.source.read(m.number(1))),
        "\x8e": lambda m: m.push(m.source.read(m.number(8))),
        "\x96": lambda m: m.push(m.source.read(m.number(8))),
        "V": lambda m: m.push(m.text_line()),
        "X": lambda m: m.push(m.text(m.number(4))),
        "\x8c": lambda m: m.push(m.text(m.number(1))),
        "\x8d": lambda m: m.push(m.text(m.number(8))),
        "]": lambda m: m.push([]),
        "}": lambda m: m.push({}),
        ")": lambda m: m.push(()),
        "\x8f": lambda m: m.push(_set(_SET, [])),
        "\x91": lambda m: m.push(_set(_FROZENSET, m.until_mark())),
        "l": lambda m: m.push(m.until_mark()),
        "d": lambda m: m.push(_pairs(m.until_mark())),
        "t": lambda m: m.push(tuple(m.until_mark())),
        "\x85": lambda m: m.tuple_of(1),
        "\x86": lambda m: m.tuple_of(2),
        "\x87": lambda m: m.tuple_of(3),
        "a": lambda m: m.extend([m.stack.pop()]),
        "e": lambda m: m.extend(m.until_mark()),
        "\x90": lambda m: m.extend(m.until_mark()),
        "s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
        "u": lambda m: m.set_items(m.until_mark()),
        "g": lambda m: m.get(m.place()),
        "h": lambda m: m.get(m.number(1)),
        "j": lambda m: m.get(m.number(4)),
        "p": lambda m: m.put(m.place()),
        "q": lambda m: m.put(m.number(1)),
        "r": lambda m: m.put(m.number(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "c": lambda m: m.push(m.name(_line_text(m), _line_text(m))),
        "\x93": _stack_global,
        "i": _instance,
        "o": _object,
        "R": _reduce,
        "\x81": _new_object,
        "\x92": _new_object_ex,
        "b": _Machine.build,
        "P": lambda m: m.push(Persistent(_line_text(m))),
        "Q": _outside,
        "\x82": _no_extension,
        "\x83": _no_extension,
        "\x84": _no_extension,
        "\x97": _no_extension,
        "\x98": _no_extension,
    }.items()
}
