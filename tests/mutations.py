"""What somebody who means harm, or a bad disk, makes of a file: bytes, JSON and protobuf messages, by a generator."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import Message  # type: ignore[import-untyped]

WORDS = (
    "",
    "..",
    "../../x",
    "/etc/passwd",
    "a\x1b[31mb",
    "\u202egnp.exe",
    "a\u200bb",
    "\x9b5m",
    "x" * 20_000,
    "\ud800",
    "é",
    "0",
)
NUMBERS = (0, -1, 1, 0.5, -0.0, 1e308, 1e-320, 255, 256, 2**31, 2**53, 2**62, 2**63, -(2**63), 10**30)
RAW = (
    "NaN",
    "-Infinity",
    "1e999",
    "1" * 5000,
    "[" * 30 + "]" * 30,
    "[" * 3000 + "]" * 3000,
    '{"a":1,"a":2}',
    '"\\ud800"',
)
_MARK = "@@raw@@"

Json = Any


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four flips, cuts, runs or splices."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not made:
            return bytes(made)
        place = rng.randrange(len(made))
        match rng.randrange(6):
            case 0:
                made[place] ^= 1 << rng.randrange(8)
            case 1:
                made[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                end = len(made) if rng.random() < 0.3 else place + rng.randint(1, 64)
                del made[place:end]
            case 3:
                made[place : place + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", rng.randbytes(4)))
            case 4:
                other = rng.randrange(len(made))
                made[place:place] = made[other : other + rng.randint(1, 200)]
            case _:
                made[place:place] = rng.randbytes(rng.randint(1, 16))
    return bytes(made)


def mutate_json(values: Json, rng: random.Random, times: int = 1) -> str:
    """A JSON text with as many places that are of another type or value, gone, moved, or no JSON of ours at all."""
    whole = {"": json.loads(json.dumps(values))}
    raw: list[str] = []
    for _ in range(times):
        places = list(_places(whole))
        holder, key = rng.choice(places)
        old = holder[key]
        match rng.randrange(9):
            case 0 if isinstance(holder, dict) and key:
                del holder[key]
            case 1 if isinstance(holder, dict) and key:
                holder[rng.choice(WORDS)] = holder.pop(key)
            case 2:
                holder[key] = [old]
            case 3:
                other, there = rng.choice(places)
                holder[key] = json.loads(json.dumps(other[there]))
            case 4:
                raw.append(rng.choice(RAW))
                holder[key] = f"{_MARK}{len(raw) - 1}"
            case 5:
                holder[key] = rng.choice((None, True, [], {}, "x"))
            case 6 if isinstance(old, list) and old:
                old.append(json.loads(json.dumps(rng.choice(old)))) if rng.random() < 0.5 else old.pop()
            case 7:
                holder[key] = rng.choice(WORDS)
            case _:
                holder[key] = rng.choice(NUMBERS)
    text = json.dumps(whole[""], indent=1)
    for number, what in enumerate(raw):
        text = text.replace(json.dumps(f"{_MARK}{number}"), what)
    return text


def _places(holder: Any) -> list[tuple[Any, Any]]:
    found, pending = [], [holder]
    while pending:
        part = pending.pop()
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            found.append((part, key))
            if isinstance(value, dict | list):
                pending.append(value)
    return found


def mutate_message(message: Message, rng: random.Random, times: int = 1) -> bytes:
    """The bytes of a protobuf message with fields, anywhere in it, of other values, gone or there twice."""
    for _ in range(times):
        places = list(_fields(message))
        part, field = rng.choice(places)
        if field.is_repeated:
            values = getattr(part, field.name)
            match rng.randrange(3):
                case 0:
                    del values[rng.randrange(len(values))]
                case 1 if field.message_type:
                    values.add().CopyFrom(rng.choice(values))
                case _ if not field.message_type:
                    with suppress(UnicodeDecodeError):  # of a name that is no text already
                        values[rng.randrange(len(values))] = _value(field, values[0], rng)
        elif field.message_type or rng.random() < 0.2:
            part.ClearField(field.name)
        else:
            with suppress(ValueError, TypeError):  # what is no text already
                setattr(part, field.name, _value(field, getattr(part, field.name), rng))
    data: bytes = message.SerializeToString()
    if rng.random() < 0.1:  # text that is no UTF-8
        names = [node.name for node in getattr(message, "graph", message).node]
        name = rng.choice([name for name in names if isinstance(name, str) and len(name) > 2] or ["graph"])
        data = data.replace(name.encode(), b"\xff\xfe" + name.encode()[2:])
    return data


def _fields(message: Message) -> list[tuple[Message, Any]]:
    found, pending = [], [message]
    while pending:
        part = pending.pop()
        for field, value in part.ListFields():
            if field.name == "raw_data" and len(value) > 4096:
                continue
            found.append((part, field))
            if field.message_type:
                pending += list(value)[:60] if field.is_repeated else [value]
    return found


def _value(field: Any, old: Any, rng: random.Random) -> Any:
    if isinstance(old, str):
        return rng.choice([word for word in WORDS if word != "\ud800"])
    if isinstance(old, bytes):
        return mutate_bytes(old, rng)
    if isinstance(old, float):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    if field.enum_type:
        return rng.choice([value.number for value in field.enum_type.values])
    narrow = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32)
    return (
        rng.choice((0, 1, 2, 7, 77, 2**31 - 1)) if narrow else rng.choice((0, 1, -1, 3, 2**20, 2**31, 2**62, -(2**63)))
    )


def sealed(text: str) -> bytes:
    """A manifest's text with the sum of it as it is now, by the rule of docs/bundle.md; as it is if it has no place."""
    start = text.find('"manifest_sha256": "')
    if start < 0:
        return text.encode("utf-8", "surrogatepass")
    start += len('"manifest_sha256": "')
    blank = text[:start] + "0" * 64 + text[text.find('"', start) :]
    digest = hashlib.sha256(blank.encode()).hexdigest()
    return blank.replace("0" * 64, digest).encode()


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bundle's manifest and seal it again."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_bytes(sealed(json.dumps(values, indent=1)))
