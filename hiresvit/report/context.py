"""What Qualcomm's compiler made of a graph, as tables for people, from the plain dicts that documents hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import RenderableType

from hiresvit.device.chips import chip_of
from hiresvit.report.tables import Values, counted, make_table, size_text

_TOP = 8
_LISTED = 20


def context_report(report: Values) -> list[RenderableType]:
    """The table of a compiled context, the nodes that are left to the CPU, and what departs from the graph."""
    chip = chip_of(report["soc_model"])
    versions = {name.replace("_", "-"): version or "unknown" for name, version in report["versions"].items()}
    macs = report["macs"]
    rows = {
        "chip": f"{chip or report['chip']}, soc_model {report['soc_model']}",
        "fast memory (VTCM)": f"{report['vtcm_mb']} MiB" if report["vtcm_mb"] else "not told to the compiler",
        **versions,
        "nodes on the HTP": str(report["nodes_htp"]),
        "nodes on the CPU": str(report["nodes_cpu"]),
        "operators": _most(report["operators"]),
        "products": _most(report["arithmetic"]),
        **{
            f"products in {word}": f"{100 * count / (sum(macs.values()) or 1):.1f} % of the MACs"
            for word, count in macs.items()
        },
        "context": size_text(report["context_bytes"]) if report["context_bytes"] else "unknown",
        "compiled in": f"{report['seconds']:.1f} s",
        "peak memory": size_text(report["peak_rss_bytes"]) if report["peak_rss_bytes"] else "unknown",
    }
    table = make_table("context for Qualcomm's HTP", "what", ">value", rows=rows.items())
    notes = [f"note: {line}" for line in report["warnings"]]
    return [table, *_refused(report["refused"]), *_departed(report["departed"]), *notes]


def _refused(refused: list[Values]) -> list[RenderableType]:
    """The nodes that the HTP does not take, by PyTorch module."""
    modules: dict[str, list[Values]] = defaultdict(list)
    for one in refused:
        modules[one["module"] or one["node"]].append(one)
    rows = [
        (name, ", ".join(dict.fromkeys(one["op"] for one in nodes)), str(len(nodes)), nodes[0]["reason"])
        for name, nodes in modules.items()
    ]
    return _first("not on the HTP", "module", "operators", ">nodes", "why", rows=rows)


def _departed(departed: list[Values]) -> list[RenderableType]:
    """The products that are computed in other types than the graph states."""
    rows = [(one["node"], one["stated"], one["computed"], str(one["macs"])) for one in departed]
    return _first("not in the arithmetic of the graph", "product", "stated", "computed", ">MACs", rows=rows)


def _first(title: str, what: str, *columns: str, rows: Sequence[Sequence[str]]) -> list[RenderableType]:
    """A table of the first rows, and how many more there are; nothing of none."""
    table = [make_table(title, what, *columns, rows=rows[:_LISTED])] if rows else []
    return [*table, *([f"and {counted(len(rows) - _LISTED, what)} more, in the sidecar"] if rows[_LISTED:] else [])]


def _most(counts: dict[str, int]) -> str:
    first = ", ".join(f"{count} {name}" for name, count in list(counts.items())[:_TOP])
    return first + (", ..." if len(counts) > _TOP else "") or "none"
