"""Text without power over whoever reads it: names out of a file may hold anything."""

from __future__ import annotations

import re

from hiresvit.schema import UNSEEN

_COLOUR = r"(?!\x1b\[[\d;]*m)"
_POWER = f"(?![\t\n])[{UNSEEN}]"


def harmless(text: str, colours: bool = False) -> str:
    """A text with control characters, those that turn its direction and those without width spelled out.

    Tabs and the ends of lines stay, and ``colours``, where what names held is spelled out already and we have set some.
    """
    return re.sub(f"{_COLOUR if colours else ''}{_POWER}", lambda found: ascii(found[0])[1:-1], text)
