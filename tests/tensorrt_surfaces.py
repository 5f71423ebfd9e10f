"""What each version of the TensorRT module has: names, values of enums, parameters; read here, recorded there.

``PYTHONPATH=tests python tests/tensorrt_surfaces.py`` records the installed TensorRT-RTX. A full TensorRT needs
a GPU's libraries to be imported, its Python bindings do not: their wheels (``pip download --no-deps
tensorrt-cu12-bindings==10.3.0``) ask for nine C functions, and load with libraries that define those and no more.
With such libraries in LD_LIBRARY_PATH and an unpacked wheel in PYTHONPATH, ``python tests/tensorrt_surfaces.py
tensorrt_bindings 10.3`` records that version. No function of theirs is called.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

SURFACES = Path(__file__).parent / "golden" / "tensorrt_api"
NAMES = sorted(path.stem for path in SURFACES.glob("*.json"))

Surface = dict[str, Any]


def load_surface(name: str) -> Surface:
    """A recorded surface, as ``10.3`` or ``rtx1.7``.

    ``library``, ``version``, ``sources`` and what is ``unconfirmed`` in words, the ``module``'s names, ``enums``
    with their values, and ``classes`` with each attribute's kind (see `surface_of`).
    """
    surface: Surface = json.loads((SURFACES / f"{name}.json").read_text(encoding="utf-8"))
    return surface


def surface_of(trt: Any) -> dict[str, Any]:
    """What a module has: names, enums with their values, classes with the kind of each attribute.

    Classes of layers and plugins are left out: a graph is parsed, no layer is made by hand.
    """
    enums: dict[str, dict[str, int]] = {}
    classes: dict[str, dict[str, str]] = {}
    for name, value in sorted(vars(trt).items()):
        if not isinstance(value, type) or "Plugin" in name or name.startswith("_"):
            continue
        if issubclass(value, trt.ILayer) and value is not trt.ILayer:
            continue
        nested: Any = getattr(value, "Severity", None)
        for dotted, enum in ((name, value), (f"{name}.Severity", nested)):
            if hasattr(enum, "__members__"):
                enums[dotted] = {member: int(number) for member, number in enum.__members__.items()}
        if name not in enums:
            public = (attribute for attribute in dir(value) if not attribute.startswith("_"))
            classes[name] = {attribute: _kind(getattr(value, attribute)) for attribute in public}
    public = (name for name, value in vars(trt).items() if not isinstance(value, ModuleType))
    module = sorted(name for name in public if not name.startswith("_") or name == "__version__")
    return {"module": module, "enums": enums, "classes": classes}


def _kind(attribute: Any) -> str:
    """``read``, ``read write``, ``constant``, or the parameters of a method as ``(a, b=) or (c)``."""
    if isinstance(attribute, property):
        return "read" if attribute.fset is None else "read write"
    if isinstance(attribute, type) or not callable(attribute):
        return "constant"
    lines = (attribute.__doc__ or "(").splitlines()
    overloads = [line for line in lines if re.match(r"\d+\. ", line)]
    return " or ".join(map(_parameters, overloads or lines[:1]))


def _parameters(line: str) -> str:
    """The parameters of a line as ``set_flag(self: IBuilderConfig, flag: BuilderFlag) -> None``."""
    inside = line[line.index("(") + 1 :].rpartition(") ->")[0]
    nested = re.compile(r"<[^<>]*>|\[[^][]*\]|\([^()]*\)")
    while nested.search(inside):
        inside = nested.sub("", inside)
    pairs = [parameter.partition(":") for parameter in inside.split(",") if ":" in parameter]
    names = [name.strip() + "=" * ("=" in rest) for name, _, rest in pairs]
    return f"({', '.join(name for name in names if name != 'self')})"


def write(surface: dict[str, Any], path: Path) -> None:
    """JSON with one enum or class a line."""
    parts = []
    for key, value in surface.items():
        nested = isinstance(value, dict)
        rows = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items()] if nested else []
        parts.append(f"{json.dumps(key)}: " + ("{\n" + ",\n".join(rows) + "\n }" if nested else json.dumps(value)))
    path.write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")


def record(module: str = "tensorrt_rtx", name: str = "rtx1.7") -> None:
    """Write a module's surface, below what is said in the file about its sources."""
    path = SURFACES / f"{name}.json"
    known: Surface = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    trt = importlib.import_module(module)
    library = "tensorrt_rtx" if "rtx" in module else "tensorrt"
    notes = {key: known.get(key, []) for key in ("sources", "unconfirmed")}
    write({"library": library, "version": trt.__version__, **notes, **surface_of(trt)}, path)


if __name__ == "__main__":
    record(*sys.argv[1:])
