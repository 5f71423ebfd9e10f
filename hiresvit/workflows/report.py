"""`hiresvit report`: bundles, what was measured of them, and sweeps, as one page."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from hiresvit.bundle.folder import bundles_in, read_bundle
from hiresvit.bundle.manifest import KIND as BUNDLE
from hiresvit.bundle.manifest import MANIFEST, utc_now
from hiresvit.data.image import load_image
from hiresvit.errors import ArtefactError, HiresvitError, UsageError
from hiresvit.files import MOST_TEXT, atomic_path, naming_source, open_regular, read_regular
from hiresvit.report.documents import KIND, RESULTS, check_page, check_result
from hiresvit.report.page import make_page
from hiresvit.report.result_parts import Pictures
from hiresvit.report.sweep import make_sweep
from hiresvit.schema import read_json
from hiresvit.workflows.open import distinct
from hiresvit.workflows.sweep.store import Store

Format = Literal["html", "md", "json"]
RESULT_VERSION = 1
"""The newest `schema_version` of a command's document that is read."""

MOST_PICTURES = 24
_SIDE = 1600  # pixels; a drawn picture that is larger is made smaller
_BYTES = 600_000  # of a picture as PNG; beyond them it is a JPEG


def write_report(
    paths: Sequence[Path],
    target: Path,
    form: Format,
    *,
    force: bool = False,
    budget_ms: float | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Read bundles, results and sweeps, and write the page of them to ``target``; returns the page of `make_page`.

    A folder that holds bundles stands for all of them. ``budget_ms`` asks for the best cell of a sweep, on one
    ``device`` class or on each. Raises HiresvitError for what is none of these, and for a ``target`` that exists unless
    ``force`` is given; ArtefactError for what is damaged, or written by a newer hiresvit; UsageError for a budget
    without a sweep, and for a class that it does not have.
    """
    if os.path.lexists(target) and not force:
        raise HiresvitError(f"{target} exists; pass --force to replace it or choose another name with -o")
    folders = [one for path in paths if path.is_dir() for one in bundles_in(path) or [path]]
    bundles = read_bundles(dict.fromkeys(folder.resolve() for folder in folders))
    given = {path.resolve(): path for path in paths if not path.is_dir()}
    names = dict(zip(given.values(), distinct(path.name for path in given.values()), strict=True))
    swept = [path for path in names if is_sweep(path)]
    files = [path for path in names if path not in swept]
    results = [{"file": names[path], "document": read_result(path)} for path in files]
    sweep = None
    if swept:
        sources = [{"file": names[path], **read_sweep(path)} for path in swept]
        sweep = make_sweep(sources, budget_ms=budget_ms, device=device)
    elif budget_ms is not None:
        raise UsageError("--budget-ms asks for the best cell of a sweep: give the file that `hiresvit sweep` wrote")
    page = make_page(bundles, results, created=utc_now(), sweep=sweep)
    text = _drawn(page, form, files)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def read_result(path: Path) -> dict[str, Any]:
    """The document that a command wrote with ``-o``.

    Raises HiresvitError for what is no such document, ArtefactError for one that is damaged or newer than we are.
    """
    with naming_source(path):
        data = read_regular(path, MOST_TEXT)
    wanted = "give bundle folders, what eval, bench, compare or verify wrote with -o, or the file of a sweep"
    try:
        values = read_json(data)
    except (ValueError, UnicodeDecodeError) as error:
        if data.lstrip()[:1] == b"{":
            raise ArtefactError(
                f"{path} is damaged or cut off: it is not whole JSON ({error}); write it anew"
            ) from error
        raise HiresvitError(f"{path} is no JSON document; {wanted}") from error
    if not isinstance(values, dict) or values.get("kind") == KIND:
        what = "is a report itself" if isinstance(values, dict) else "holds no JSON object"
        raise HiresvitError(f"{path} {what}; {wanted}")
    if values.get("kind") == BUNDLE:
        raise HiresvitError(f"{path} is the {MANIFEST} of a bundle: give its folder, {path.parent}")
    version = values.get("schema_version")
    if isinstance(version, int) and version > RESULT_VERSION:
        raise ArtefactError(
            f"{path} has schema version {version}, this hiresvit reads {RESULT_VERSION}: it was written by a newer one,"
            " update hiresvit"
        )
    if version is None or not any(key in values for key in (*RESULTS, "error")):
        raise HiresvitError(f"{path} is no result of ours: it has none of {', '.join(RESULTS)}; {wanted}")
    try:
        check_result(values)
    except ValueError as error:
        raise ArtefactError(f"{path} is damaged: {error}; write it anew") from error
    return values


def is_sweep(path: Path) -> bool:
    """Whether a file is what `hiresvit sweep` writes: its first line is a whole result, or its name ends in .jsonl."""
    with naming_source(path), open_regular(path) as stream:
        first = stream.readline(MOST_TEXT)
    try:
        values = read_json(first)
    except ValueError:
        return path.suffix.lower() == ".jsonl"
    return isinstance(values, dict) and {"key", "command", "cells"} <= values.keys()


def read_sweep(path: Path) -> dict[str, Any]:
    """The ``rows`` of a sweep's file, and whether its last line is ``cut``.

    Raises ArtefactError for a line, or a document in one, that is damaged, and HiresvitError for a file without one.
    """
    with naming_source(path):
        store = Store(path)
    for row in store.rows.values():
        if row.exit_code == 0 and row.document is not None:
            try:
                check_result(row.document)
            except ValueError as error:
                raise ArtefactError(f"{path}: the document of `{row.line}` is damaged: {error}") from error
    if not store.rows:
        raise HiresvitError(f"{path} holds no result of a sweep yet: run `hiresvit sweep` until there is one")
    return {"rows": [asdict(row) for row in store.rows.values()], "cut": store.cut}


def read_bundles(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """Verified bundles as `make_page` takes them. Raises as `read_bundle`."""
    read = [read_bundle(folder) for folder in folders]
    names = distinct(bundle.folder.name for bundle in read)
    return [
        {
            "name": name,
            "folder": bundle.folder.name,
            "unlisted": list(bundle.unlisted),
            **json.loads(json.dumps(bundle.manifest.to_json())),
        }
        for name, bundle in zip(names, read, strict=True)
    ]


def _drawn(page: dict[str, Any], form: Format, files: Sequence[Path]) -> str:
    if form == "json":
        check_page(page)
        return json.dumps(page, indent=2, allow_nan=False) + "\n"
    if form == "md":
        from hiresvit.report.markdown import markdown_page

        return markdown_page(page)
    from hiresvit.report.html import html_page

    return html_page(page, _pictures(page["results"], files))


def _pictures(results: Sequence[dict[str, Any]], files: Sequence[Path]) -> Pictures:
    """The pictures that evaluations drew, as `data:` addresses, or None and why, by result and name.

    Only what lies in the folder of its document, or below it, is looked at: a document may be anybody's.
    """
    found: dict[tuple[str, str], tuple[str | None, str]] = {}
    for result, file in zip(results, files, strict=True):
        for row in (result["document"].get("accuracy") or {}).get("worst") or ():
            if name := row.get("image"):
                key = (result["file"], name)
                full = len(found) >= MOST_PICTURES
                found[key] = (None, f"only {MOST_PICTURES} are shown") if full else _picture(file.parent, name)
    return found


def _picture(folder: Path, name: str) -> tuple[str | None, str]:
    folder = folder.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        return None, "it does not lie beside its document"
    try:
        picture = Image.fromarray(load_image(path))
    except HiresvitError as error:
        return None, str(error)
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    kind = "png"
    if content.tell() > _BYTES:
        content, kind = io.BytesIO(), "jpeg"
        picture.save(content, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}", ""
