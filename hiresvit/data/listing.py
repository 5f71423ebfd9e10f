"""A list of pictures as people and their tools write it: whatever names a file there is taken, the rest is counted.

A line is a path, in quotes or not, perhaps with a label or more columns behind or before it. Text of any Unicode
encoding with a byte order mark, UTF-8, or the bytes of the file names themselves; ``#`` begins a comment.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from hiresvit.data.image import local_path
from hiresvit.data.source import Found, find_in_folder
from hiresvit.errors import HiresvitError

LISTS = (".txt", ".lst", ".list", ".csv", ".tsv")
LIST_BYTES = 2**26
_MOST_COLUMNS = 32  # of a line, that are tried; no list has more, and a file that is no list may
_MOST_MISSING = 1000  # after so many lines that name no file it is clear what the list is
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_list(path: Path) -> Found:
    """The pictures that a list names, each once, sorted by their lines; folders in it are searched.

    Relative paths are looked for beside the list, then in the working directory. Raises HiresvitError for what is no
    list, for an empty one, and for one most of whose lines name no file.
    """
    found = Found()
    lines = sorted({line.strip() for line in _text(path).splitlines()} - {""})
    bases = (path.parent, Path())
    missing = "lines that name no file"
    for line in lines:
        if found.left_out.get(missing, (0, ""))[0] > max(_MOST_MISSING, len(found.paths)):
            break
        named = _named(line, bases)
        if named is None and line.startswith("#"):
            continue
        if named is None:
            url = re.search(r"\b(https?|ftp|s3|gs)://", line, re.IGNORECASE)
            found.leave("addresses on the network: download them first" if url else missing, repr(line[:120]))
        elif named.is_dir():
            inside = find_in_folder(named)
            found.paths += inside.paths
            found.left_out |= inside.left_out
        elif not _is_file(named):
            found.leave("pipes or devices", named)
        else:
            found.paths.append(named)
    found.paths = list(dict.fromkeys(found.paths))
    if not lines:
        raise HiresvitError(f"{path}: the list is empty; write one path per line")
    found.require(str(path), f"none of {len(lines)} lines names a picture, beside the list or in the working directory")
    count, first = found.left_out.get(missing, (0, ""))
    if count > len(found.paths):
        where = "beside the list or in the working directory"
        raise HiresvitError(
            f"{path}: of {len(lines)} lines {count} or more name no file, {where}; the first is {first}"
        )
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LIST_BYTES:
            raise HiresvitError(f"{path}: a list of more than {LIST_BYTES >> 20} MiB is none; give a folder")
        data = path.read_bytes()
    except OSError as error:
        raise HiresvitError(f"{path}: not a list of paths ({error.strerror})") from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if encoding is None and data[:400].count(0) > len(data[:400]) // 3:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        # names are bytes to the system: those that are no UTF-8 are kept as they are
        text = data.decode(encoding) if encoding else os.fsdecode(data)
    except UnicodeDecodeError as error:
        raise HiresvitError(f"{path}: not a list of paths ({error})") from error
    if "\0" in text:
        raise HiresvitError(f"{path}: not a list of paths (it has null characters); write one path per line")
    return text


def _named(line: str, bases: tuple[Path, ...]) -> Path | None:
    """The file that a line names: the most of it from its start that does, or from its end, or a column."""
    cuts = [match.span() for match in re.finditer(r"[\s,;|]+", line)][:_MOST_COLUMNS]
    starts = [line[end:] for _, end in cuts]
    columns = [line[end:start] for (_, end), (start, _) in pairwise(cuts)]
    for part in (line, *(line[:start] for start, _ in reversed(cuts)), *starts, *columns):
        for text in dict.fromkeys(_spellings(part)):
            for base in bases:
                path = base / text
                try:
                    path.stat()
                except (OSError, ValueError):  # ValueError: a null character
                    continue
                return path
    return None


def _spellings(part: str) -> Iterator[str]:
    """A path as it is, then without quotes and with what a shell or another system means by it."""
    bare = part.strip().strip("\"'`")
    if bare in ("", ".", ".."):
        return
    yield part
    meant = os.path.expanduser(local_path(bare))
    yield meant
    if "\\" in meant:
        yield meant.replace("\\ ", " ")
        yield meant.replace("\\", "/")


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.stat().st_mode)
