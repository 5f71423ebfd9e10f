"""What a page says of a bundle: what it was made from, how far its graphs are from PyTorch, and what its plans are."""

from __future__ import annotations

from dataclasses import replace

from hiresvit.bundle.manifest import short
from hiresvit.report.blocks import NOT_MEASURED, Block, Chart, Code, Lines, Part, Table, as_printed, facts_of, part
from hiresvit.report.chart import MOST_ROWS, bar_chart
from hiresvit.report.contract import answers_table
from hiresvit.report.htp import htp_report
from hiresvit.report.int8 import int8_report
from hiresvit.report.latency import latency_tables
from hiresvit.report.parity import parity_table
from hiresvit.report.results import (
    contract_fact,
    engine_report,
    files_table,
    fp16_lines,
    graphs_report,
    origin_facts,
    simplify_line,
    spec_facts,
    tensors_table,
)
from hiresvit.report.tables import Values


def bundle_part(bundle: Values) -> Part:
    """All of a bundle, what is read first first."""
    facts = facts_of(spec_facts(bundle["spec"]) | contract_fact(bundle) | origin_facts(bundle))
    made = [facts, *as_printed([files_table(bundle["files"]), tensors_table(bundle)])]
    blocks = [
        *part("What was made from what", made),
        *part("Parity with PyTorch", _parity(bundle)),
        *part("INT8 beside FP16", _int8(bundle)),
        *part("Qualcomm's HTP", as_printed(htp_report(bundle["htp"]))),
        *part("Plans: kernels and memory", _plans(bundle)),
        *part("Graphs", _graphs(bundle), folded=True),
        *part("Latency at the export", _latency(bundle), folded=True),
        *part("Sums to check", [_sums(bundle)], folded=True),
    ]
    return Part(bundle["name"], tuple(blocks))


def _parity(bundle: Values) -> list[Block]:
    parity = bundle["parity"]
    if not parity:
        return [Lines((f"Parity was {NOT_MEASURED}.",))]
    answers = [answers_table(parity["contract"])] if "contract" in parity else []
    return as_printed([parity_table(parity), *answers])


def _int8(bundle: Values) -> list[Block]:
    int8 = bundle["int8"]
    if not int8:
        return []
    blocks = as_printed(int8_report(int8, bundle["engines"]))
    modules = (int8.get("sensitivity") or {}).get("modules")
    if not modules:
        return blocks
    title, kept = "what each module loses alone in INT8", int8["policy"]["keep"]
    rows = [(row["module"], row["drop"]) for row in modules[:MOST_ROWS]]
    svg = bar_chart(rows, title=title, unit="points", highlight=kept, inline=True)
    return [*blocks, Chart(svg, f"{title}; what stays in FP16 is orange")]


def _plans(bundle: Values) -> list[Block]:
    engines = bundle["engines"]
    if not engines:
        return [Lines(("The bundle has no plan: nothing is known of kernels and memory on a device.",))]
    tables = [(stage, as_printed(engine_report(engine))) for stage, engine in engines.items()]
    return [
        replace(block, title=f"{stage}: {block.title}") if isinstance(block, Table) else block
        for stage, blocks in tables
        for block in blocks
    ]


def _graphs(bundle: Values) -> list[Block]:
    lines = [simplify_line(bundle["simplify"])] if bundle["simplify"] else []
    lines += fp16_lines(bundle["fp16"]) if bundle["fp16"] else []
    return as_printed([*(graphs_report(bundle["graphs"]) if bundle["graphs"] else []), *lines])


def _latency(bundle: Values) -> list[Block]:
    if not bundle["latency"]:
        return [Lines((f"Latency was {NOT_MEASURED} at the export.",))]
    return as_printed(latency_tables(bundle["latency"]))


def _sums(bundle: Values) -> Code:
    """What a shell checks the files with, in the bundle's folder."""
    lines = [f"{entry['sha256']}  {entry['name']}" for entry in bundle["files"]]
    weights = bundle["weights"]
    made = f"# weights: {weights['source']} {weights['sha256'] or short(None)}"
    return Code("\n".join([made, "sha256sum -c <<'END'", *lines, "END"]))
