"""Reports as tables for people, from the plain dicts that manifests and ``--json`` documents hold.

Nothing is computed here, only rounded. What a manifest holds is as `hiresvit.bundle.schema` says; what was not done
in an export is None there and left out here.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from hiresvit.data.preprocess import describe
from hiresvit.device.tensorrt_api import TITLES
from hiresvit.errors import install_line
from hiresvit.report.context import context_report
from hiresvit.report.contract import answers_table, contract_text
from hiresvit.report.htp import htp_report
from hiresvit.report.int8 import engine_facts, int8_report
from hiresvit.report.latency import latency_tables, place
from hiresvit.report.parity import parity_table
from hiresvit.report.tables import Values, headroom_lines, make_table, number_text, size_text
from hiresvit.report.traffic import traffic_report
from hiresvit.spec import ContractSpec, PreprocessSpec

TOP_OPERATORS = 6
_PLAIN_LINE = 80
_PLAN_FACTS = ("path", "bytes", "backend", "version", "graph", "graph_sha256")
_CONTEXT_FACTS = ("path", "bytes", "chip", "qairt", "nodes_cpu", "graph", "graph_sha256")


def export_report(manifest: Values) -> list[RenderableType]:
    """What an export found: graphs, parity, latency and kernels, then the notes."""
    items: list[RenderableType] = []
    if simplify := manifest["simplify"]:
        items.append(simplify_line(simplify))
    if fp16 := manifest["fp16"]:
        items += fp16_lines(fp16)
    if parity := manifest["parity"]:
        items.append(parity_table(parity))
        if "contract" in parity:
            items.append(answers_table(parity["contract"]))
    if latency := manifest["latency"]:
        items += latency_tables(latency)
    engines = manifest["engines"]
    if "fp16" in engines:
        items.append(engine_table(engines["fp16"]))
    if int8 := manifest["int8"]:
        items += int8_report(int8, engines)
    if htp := manifest["htp"]:
        items += htp_report(htp)
    return [*items, *_notes(manifest["notes"])]


def inspect_report(found: Values) -> list[RenderableType]:
    """What `inspect_source` said of a model name, a graph or a bundle."""
    if found["kind"] == "model":
        facts = {key: _plain(value) for key, value in found.items() if key not in {"kind", "tasks", "name"}}
        facts |= {f"pictures to {row['task']}": _preprocessing(row) for row in found["tasks"]}
        return [models_table([found]), _facts(facts)]
    if found["kind"] == "graph":
        ours = [_facts(spec_facts(found["spec"]) | contract_fact(found))] if found["spec"] else []
        graph = graphs_report({found["stage"] or "unknown": found})
        return [*ours, tensors_table(found), *graph, *_notes(found["notes"])]
    if found["kind"] == "checkpoint":
        return [*_checkpoint_report(found), *_notes(found["notes"])]
    if found["kind"] == "context":
        facts = {key: _plain(found[key]) for key in _CONTEXT_FACTS if key in found}
        facts |= spec_facts(found["spec"]) | contract_fact(found) if found.get("spec") else {}
        if "report" not in found:
            return [_facts(facts), "note: nothing stands beside the context that says more"]
        return [_facts(facts), *context_report(found["report"])]
    if found["kind"] == "plan":
        facts = {key: _plain(found[key] or "unknown") for key in _PLAN_FACTS if key in found}
        facts |= contract_fact(found) if found.get("spec") else {}
        if "report" not in found:
            return [_facts(facts), "note: nothing stands beside the plan that says more"]
        moved = traffic_report(found["traffic"]) if found.get("traffic") else []
        engine = engine_report(found["report"])
        return [_facts(facts), tensors_table(found["report"]), *engine, *moved, *_notes(found.get("notes", ()))]
    unlisted = [f"note: {name} lies in the folder and is no part of the bundle" for name in found["unlisted"]]
    return [
        _facts(spec_facts(found["spec"]) | contract_fact(found) | origin_facts(found)),
        files_table(found["files"]),
        tensors_table(found),
        *graphs_report(found["graphs"]),
        *export_report(found),
        *unlisted,
    ]


def _notes(notes: Sequence[str]) -> list[RenderableType]:
    return [f"note: {note}" for note in notes]


def _checkpoint_report(found: Values) -> list[RenderableType]:
    said = f"{found['path']}: {found['tensors']} tensors, of {found['entry']}"
    if not found["models"]:
        return [f"{said}; they are of none of our models"]
    rows = [
        (
            model["name"],
            model["task"],
            number_text(model["num_classes"], ""),
            " ".join(f"{name}={value}" for name, value in model["settings"].items()),
            model["labels"] or "",
        )
        for model in found["models"]
    ]
    return [said, make_table(None, "model", "task", ">classes", "settings", "names of", rows=rows)]


def models_report(models: Sequence[Values]) -> list[RenderableType]:
    """Variants with what their papers say and what we count, then what both mean and where weights are."""
    counted = _grouped((model["paper_counts"], model["family"]) for model in models)
    origins = _grouped((model["weights"], model["name"]) for model in models)
    return [
        models_table(models),
        "\nGMACs, ours: convolutions, linear layers and both attention matmuls. The paper's count of",
        *(f"  {', '.join(families)}: {what}" for what, families in counted.items()),
        "\nweights of",
        *(f"  {', '.join(names)}: {where}" for where, names in origins.items()),
    ]


def models_table(models: Iterable[Values]) -> Table:
    """One row per variant and task."""
    rows = [
        (
            "" if number else model["name"],
            row["task"] + (" (default)" if row["default"] else ""),
            _by(row["imgsz"]),
            number_text(row["params"], ".3f"),
            number_text(row["paper_params"], f".{row['digits']}f"),
            number_text(row["gmacs"], ".2f"),
            number_text(row["paper_gmacs"], ""),
        )
        for model in models
        for number, row in enumerate(model["tasks"])
    ]
    return make_table(None, "model", "task", "size", ">params M", ">paper", ">GMACs", ">paper", rows=rows)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """What each key stands beside, in order and once."""
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        if value not in groups.setdefault(key, []):
            groups[key].append(value)
    return groups


def compare_report(found: Values) -> list[RenderableType]:
    """What a comparison found: the table, then what each graph in FP16 uses of its range."""
    if "contract" in found:
        return [answers_table(found)]
    return [parity_table(found), *(line for graph in found["fp16"] for line in headroom_lines(graph, graph["graph"]))]


def engine_report(engine: Values) -> list[RenderableType]:
    """The table of a built plan, and the builder's warnings."""
    return [engine_table(engine), *(f"note: {line}" for line in engine["warnings"])]


def engine_table(engine: Values) -> Table:
    """Kernels by kind, fused attentions, realised precision and memory of a built plan."""
    unnamed = "no GPU" if engine["backend"] == "tensorrt_rtx" else "a GPU that no CUDA binding names"
    facts = engine_facts(engine)
    rows = {
        "for compute capability": engine["compute_capability"],
        "built on": f"{engine['device'] or unnamed}, {engine['platform']}",
        **{f"{kind} kernels": str(count) for kind, count in _most_first(engine["kernels"])},
        "kernels in all": facts.pop("kernels"),
        "attentions fused": facts.pop("attentions fused"),
    }
    if products := facts.pop("products in"):
        rows["attentions, convolutions, products in"] = products
    title = f"plan by {TITLES[engine['backend']]} {engine['version']}"
    return make_table(title, "what", ">count", rows=(rows | facts).items())


def shares_table(shares: Sequence[Values]) -> Table:
    """Segmentation: the share of the picture each class covers, largest first."""
    return make_table(None, "class", ">share", rows=[(row["name"], f"{100 * row['share']:.1f} %") for row in shares])


def top_table(top: Sequence[Values]) -> Table:
    """Classification: the best classes."""
    rows = [(row["name"], f"{100 * row['probability']:.2f} %") for row in top]
    return make_table(None, "class", ">probability", rows=rows)


def boxes_table(boxes: Sequence[Values]) -> Table:
    """Detection: what was found, best first, and where, in pixels."""
    rows = [(b["name"], f"{100 * b['score']:.1f} %", *(f"{side:.1f}" for side in b["box"])) for b in boxes]
    return make_table(None, "class", ">score", ">left", ">top", ">right", ">bottom", rows=rows)


def pictures_table(rows: Sequence[Values]) -> Table:
    """A picture a row: its three largest classes or best boxes or its best class, or why it has no answer."""
    table = make_table(None, "picture", "answer")
    for row in rows:
        found = row.get("shares", row.get("boxes", row.get("top", [])[:1]))[:3]
        shares = [next(one[key] for key in ("share", "score", "probability") if key in one) for one in found]
        said = [f"{one['name']} {100 * share:.1f} %" for one, share in zip(found, shares, strict=True)]
        table.add_row(row["image"], ", ".join(said) or "none")
    return table


def doctor_tables(found: Values) -> list[RenderableType]:
    """What `doctor.examine` found."""
    libraries = [
        (row["name"], row["version"] or "-", row["wanted"], row["extra"] or "everything") for row in found["libraries"]
    ]
    tables = []
    for title, kind, rows in (
        ("what works here", "ability", found["abilities"]),
        ("what measures power here", "source", found["power"]),
    ):
        cells = [(row["name"], "yes" if row["works"] else "no", row["detail"]) for row in rows]
        table = make_table(title, kind, "works", "detail", rows=cells)
        table.columns[-1].max_width = max(20, _PLAIN_LINE - max(len(cell) for cell, *_ in cells) - len("  works  "))
        tables.append(table)
    # Not in the table: a line that is to be copied must not be broken.
    hints = [
        textwrap.fill(
            f"{row['name']}: {row['hint']}",
            _PLAIN_LINE,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for row in found["abilities"]
        if row["hint"]
    ]
    return [
        _facts(found["machine"]),
        make_table("libraries", "name", "installed", "wanted", "for", rows=libraries),
        *tables,
        *(["\nto get the rest", *hints] if hints else []),
    ]


def simplify_line(report: Values) -> str:
    """What simplifying did to the number of nodes, or why it was undone."""
    if report["rolled_back"]:
        return f"simplify: left as it was, {report['nodes_before']} nodes: {report['rolled_back']}"
    return f"simplify: {report['nodes_before']} -> {report['nodes_after']} nodes"


def fp16_lines(report: Values) -> list[str]:
    """The counts, and a line for each kind of value that FP16 cannot hold."""
    counts = f"{report['nodes_fp16']} nodes in FP16, {report['nodes_fp32']} in FP32, {report['casts']} casts"
    lines = [f"fp16: {counts}, {report['subnormal']} weights below 2**-14"]
    for loss, what in (("overflow", "clamped to 65504"), ("flushed", "flushed to 0")):
        if rows := report[loss]:
            worst = max(rows, key=lambda row: abs(row["extreme"]))
            count = f"{sum(row['count'] for row in rows)} weights of {len(rows)} tensors {what}"
            lines.append(f"fp16: {count}, the largest {worst['extreme']:.3g} in {worst['name']}")
    for row in report.get("activation_hazards", ()):  # of schema 4 and before
        lines.append(f"fp16: {row['hazard']} in {row['name']}, up to {row['max_abs']:.3g}")
    return lines + headroom_lines(report, "fp16")


def files_table(files: Iterable[Values]) -> Table:
    """A row for each file of a bundle: its size, what it was made from and the beginning of its sum."""
    rows = [
        (row["name"], row["role"], size_text(row["bytes"]), row["parent"] or "weights", row["sha256"][:12])
        for row in files
    ]
    title = "files, each after what it was made from"
    return make_table(title, "file", "role", ">size", "made from", "sha256", rows=rows)


def tensors_table(found: Values) -> Table:
    """What goes in and comes out of a graph, by name."""
    rows = [
        (side, tensor["name"], tensor["dtype"], _by(tensor["shape"]))
        for side in ("input", "output")
        for tensor in found[f"{side}s"]
    ]
    return make_table("contract", "side", "name", "type", "shape", rows=rows)


def graphs_report(graphs: Mapping[str, Values]) -> list[RenderableType]:
    """A row for each graph: its nodes, attentions, size and most frequent operators."""
    table = make_table("graphs", "graph", ">opset", ">nodes", ">attentions", ">size", "operators")
    for name in sorted(graphs, key=place):
        graph = graphs[name]
        operators = _most_first(graph["operators"] or {})
        listed = ", ".join(f"{count} {kind}" for kind, count in operators[:TOP_OPERATORS])
        more = f" and {len(operators) - TOP_OPERATORS} more" if len(operators) > TOP_OPERATORS else ""
        counts = (number_text(graph[key], "d") for key in ("opset", "nodes", "attentions"))
        table.add_row(name, *counts, size_text(graph["bytes"]), listed + more)
    if all(graph["nodes"] is not None for graph in graphs.values()):
        return [table]
    return [table, f"note: nodes and attentions are counted with onnx: {install_line('export')}"]


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def spec_facts(spec: Values) -> dict[str, str]:
    """What a model is and what it is given."""
    facts = {"model": spec["name"], "task": spec["task"], "size": _by(spec["imgsz"])}
    if spec["num_classes"]:
        facts["classes"] = str(spec["num_classes"])
    for name, value in spec["overrides"]:
        facts[name] = _plain(value)
    return facts | {"pictures": _preprocessing(spec)}


def contract_fact(found: Values) -> dict[str, str]:
    """What goes in and comes out of a graph, a plan or a bundle that says so."""
    return {"contract": contract_text(ContractSpec.from_json(found["contract"]), found["spec"]["task"])}


def _preprocessing(values: Values) -> str:
    """What is done to a picture, by the ``preprocess`` and ``imgsz`` of a spec or of a task's row."""
    height, width = values["imgsz"]
    return describe(PreprocessSpec.from_json(values["preprocess"]), (height, width))


def origin_facts(found: Values) -> dict[str, str]:
    """Weights, command, time and tools of a bundle."""
    weights = found["weights"]
    digest = f" (sha256 {weights['sha256'][:12]})" if weights["sha256"] else ""
    return {
        "weights": weights["source"] + digest,
        "command": shlex.join(found["command"]),
        "created": found["created"],
        "tools": _plain(found["tools"]),
    }


def _facts(facts: Values) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(item) for item in value)
    return str(value)


def _by(sizes: Iterable[int | str]) -> str:
    return "x".join(str(size) for size in sizes)
