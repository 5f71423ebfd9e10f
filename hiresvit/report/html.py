"""A page as one HTML file that needs no network and no script: style, charts and pictures are in it.

Every text is escaped by jinja2 and made harmless on its way; only charts that we drew are markup. The page's own policy
forbids whatever slips through to run or to load anything.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hiresvit.report.harmless import harmless
from hiresvit.report.result_parts import Pictures
from hiresvit.report.sections import page_parts, page_title
from hiresvit.report.tables import Values


def html_page(page: Values, pictures: Pictures) -> str:
    """The page of `make_page` as a document."""
    template = _environment().get_template("report.html")
    return template.render(title=page_title(page), page=page, parts=page_parts(page, pictures))


def _harmless(value: Any) -> Any:
    """What is printed, unless it is markup: a macro's, or a chart, whose texts were escaped where they were drawn."""
    return harmless(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("hiresvit.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["anchor"] = _anchor
    return made
