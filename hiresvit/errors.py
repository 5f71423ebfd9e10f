"""Every error this package raises on purpose, each with the exit code the command line gives it.

::

    HiresvitError            1  bad input: a file, an image, a checkpoint
    ├── UsageError           2  the arguments themselves cannot be served (also a ValueError)
    ├── IllegalGraphError    3  the graph is illegal for its target
    ├── GateError            4  a parity, accuracy or budget gate failed
    ├── BuildError           5  an engine build failed
    │   └── BuilderRefusal   5  because the builder says no to the graph, and not because it died
    ├── MissingDependency    6  a library or device that is not here
    └── ArtefactError        7  an artefact is damaged, stale or does not match

A message is one line: what was given, what is allowed, what to do.
"""

from __future__ import annotations

import errno
import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class HiresvitError(Exception):
    """Bad input; the message is for the user and needs no traceback."""

    exit_code = 1

    def to_json(self) -> dict[str, Any]:
        """What a document says of what failed: ``message``, in one line, and ``exit_code``."""
        return {"message": " ".join(str(self).split()), "exit_code": self.exit_code}


class UsageError(HiresvitError, ValueError):
    """Arguments that cannot be served: an unknown model, a size off the grid, an impossible combination."""

    exit_code = 2


class IllegalGraphError(HiresvitError):
    """A graph that the target cannot take."""

    exit_code = 3


class GateError(HiresvitError):
    """A parity, accuracy or budget gate that failed."""

    exit_code = 4


class BuildError(HiresvitError):
    """An engine build that failed, with the builder's last lines."""

    exit_code = 5


class BuilderRefusal(BuildError):  # noqa: N818  (reads as the builder's no)
    """The builder's own no to a graph: `check` takes it for the graph's fault."""


class MissingDependency(HiresvitError):  # noqa: N818  (reads as the thing that is missing)
    """A library or a device that this machine lacks, and how to get it."""

    exit_code = 6


class ArtefactError(HiresvitError):
    """A bundle, plan or table that is damaged, stale or does not match."""

    exit_code = 7


_ADVICE = {
    errno.EACCES: "look at the permissions of it and of the folders above it",
    errno.EPERM: "look at the permissions of it and of the folders above it",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ENOSPC: "make room there or choose another place",
}


def refused(error: BaseException) -> HiresvitError | None:
    """What the system's own no means to the user, as a folder that may not be entered; None for any other error."""
    if not isinstance(error, OSError) or not error.strerror:  # without one it is a library's
        return None
    where = f"cannot open {error.filename}: " if error.filename else ""
    advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
    return HiresvitError(f"{where}{error.strerror}{advice}")


_EXPORT = {"torch": "PyTorch", "onnx": "onnx", "onnxscript": "onnxscript", "onnxsim": "onnxsim"}


def missing_extra(error: BaseException) -> MissingDependency | None:
    """What an import that failed for want of the extra ``export`` means to the user; None for any other error."""
    module = error.name if isinstance(error, ModuleNotFoundError) else None
    if module not in _EXPORT:
        return None
    return MissingDependency(f"this needs {_EXPORT[module]}, which is not installed: {install_line('export')}")


@cache
def install_line(extra: str) -> str:
    """The pip command that brings an extra here: hiresvit is on no index, so it is named by where it came from.

    That is the clone that runs, else what pip has kept of its source (PEP 610): a clone, a wheel or an address.
    """
    root = Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{root}[{extra}]')}"
    from importlib import metadata  # takes as long as all else here

    try:
        origin = json.loads(metadata.distribution("hiresvit").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError, OSError):
        origin = {}
    url = str(origin.get("url", ""))
    if vcs := origin.get("vcs_info"):
        url = f"{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    elif url.startswith("file:"):
        place = Path(unquote(urlsplit(url).path))
        if place.exists():
            return f"pip install {shlex.quote(f'{place}[{extra}]')}"
    elif not url:
        return f"pip install '.[{extra}]' in a clone of hiresvit"
    return f"pip install {shlex.quote(f'hiresvit[{extra}] @ {url}')}"
