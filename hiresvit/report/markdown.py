"""A page as Markdown, as code hosts and chats show it: the tables of the HTML page, without its charts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hiresvit.report.blocks import NOT_MEASURED, Block, Cell, Chart, Code, Facts, Lines, Part, Picture, Table
from hiresvit.report.cautions import LEVELS
from hiresvit.report.harmless import harmless
from hiresvit.report.sections import page_parts, page_title
from hiresvit.report.tables import Values

# What Markdown, or HTML in it, takes for markup or for a link, and what makes a list of a line.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~$&!]|(?<=:)/(?=/)|(?<=www)\.|(?<=\w)@|^[-+]|(?<=\d)[.)](?=\s)")
_LEVEL = dict(zip(LEVELS, ("**ALARM**", "**Warning**", "Note"), strict=True))


def markdown_page(page: Values) -> str:
    """The page of `make_page` as a document in GitHub's Markdown."""
    lines = [
        f"# {_text(page_title(page))}",
        "",
        f"By hiresvit {_text(page['hiresvit'])}, {_text(page['created'])}.",
        "",
    ]
    for line in page["warnings"]:
        lines.append(f"- {_LEVEL[line['level']]} {_text(line['about'])}: {_text(line['text'])}")
    lines += ["", "## At a glance", ""]
    for card in page["glance"]:
        value = NOT_MEASURED if card["value"] is None else f"**{_text(card['value'])}**"
        lines.append(f"- {_text(card['what'])}: {value} ({_text(card['detail'])})")
    lines.append("")
    for one in page_parts(page, {}):
        lines += _block(one, 2)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _block(block: Block, level: int) -> Iterator[str]:
    if isinstance(block, Part):
        yield from (f"{'#' * min(level, 6)} {_text(block.title)}", "")
        for inside in block.blocks:
            yield from _block(inside, level + 1)
    elif isinstance(block, Table):
        yield from ([f"{_text(block.title)}:", ""] if block.title else [])
        heads = [_text(head.removeprefix(">")) for head in block.columns]
        yield _row(heads)
        yield _row("--:" if head.startswith(">") else "---" for head in block.columns)
        for row in block.rows:
            yield _row([*map(_cell, row), *[""] * (len(heads) - len(row))])
    elif isinstance(block, Facts):
        yield from ("| | |", "|---|---|")
        yield from (_row((_text(name), _text(value))) for name, value in block.rows)
    elif isinstance(block, Lines):
        yield from (f"- {_text(line)}" for line in block.lines)
    elif isinstance(block, Code):
        yield from ("```sh", harmless(block.text).replace("```", "'''"), "```")
    elif isinstance(block, Picture):
        yield f"- {_text(block.words)}{f', {_text(block.file)}' if block.file else ''}"
    elif isinstance(block, Chart):
        return
    yield ""


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _cell(cell: Cell) -> str:
    return _text(cell.text) + (f"<br>{_text(cell.under)}" if cell.under else "")


def _text(text: str) -> str:
    """Any text as text."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", harmless(" ".join(text.split())))
