"""What an INT8 graph is like beside the FP16 graph, as tables for people.

From the plain dicts that manifests and ``--json`` documents hold, as in `hiresvit.report.results`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table

from hiresvit.device.tensorrt_api import TITLES
from hiresvit.report.chart import bar_chart, text_bar
from hiresvit.report.tables import Values, headroom_lines, make_table, number_text, size_text
from hiresvit.report.traffic import traffic_facts

TOP_MODULES = 12


def int8_report(int8: Values, engines: Mapping[str, Values] | None = None) -> list[RenderableType]:
    """Ranges, layers, sensitivity, accuracy and, where they were built, both plans; then what follows from it."""
    items: list[RenderableType] = [*calibration_lines(int8["calibration"], "int8"), *_layer_lines(int8["quantize"])]
    items += headroom_lines(int8, "int8")
    if sensitivity := int8.get("sensitivity"):
        items.append(sensitivity_table(sensitivity, int8["policy"]["keep"]))
    if fallback := int8.get("fallback"):
        items.append(fallback_line(fallback, "int8", "in FP16"))
    if accuracy := int8.get("accuracy"):
        items += accuracy_tables(accuracy)
    if engines and len(engines) > 1:
        items.append(plans_table(engines, run=bool((int8.get("decision") or {}).get("latency"))))
    return [*items, *int8.get("verdict", ())]


def sensitivity_table(sensitivity: Values, kept: list[str]) -> Table:
    """The modules that lose most alone in INT8, with a bar for each."""
    modules = sensitivity["modules"]
    title = f"what a module loses alone in INT8, the worst {min(TOP_MODULES, len(modules))} of {len(modules)}"
    most = max((row["drop"] for row in modules), default=0.0)
    rows = []
    for row in modules[:TOP_MODULES]:
        numbers = (f"{row['drop']:.3f}", number_text(row["sqnr_db"], ".1f"), f"{100 * row['share']:.1f}")
        stays = "stays in FP16" if row["module"] in kept else ""
        rows.append((row["module"], *numbers, text_bar(row["drop"], most), stays))
    return make_table(title, "module", ">points", ">SQNR dB", ">MACs %", "", "", rows=rows)


def plans_table(engines: Mapping[str, Values], *, run: bool = False) -> Table:
    """Both plans side by side; ``run`` says whether they were."""
    plans = [engine_facts(engine) for engine in engines.values()]
    facts = ["kernels", "attentions fused", "plan size", "weight size", "activation size", "products in", "build time"]
    facts += [fact for fact in traffic_facts(next(iter(engines.values()))) if all(fact in plan for plan in plans)]
    rows = [(fact, *(plan[fact] for plan in plans)) for fact in facts]
    title = "plans" if run else "plans, built and not run"
    return make_table(title, "what", *(f">{name}" for name in engines), rows=rows)


def engine_facts(engine: Values) -> dict[str, str]:
    """What a plan is made of, as text by name."""
    return {
        "kernels": str(engine["kernel_total"]),
        "attentions fused": f"{engine['attentions_fused']} of {engine['attentions_total']}",
        "products in": ", ".join(f"{count} {name}" for name, count in engine["precision"].items()),
        **{f"{part} size": size_text(engine[f"{part}_bytes"]) for part in ("activation", "scratch", "weight", "plan")},
        **traffic_facts(engine),
        "builder's memory": size_text(engine["peak_rss_bytes"]),
        "build time": f"{engine['build_seconds']:.1f} s",
    }


def sensitivity_chart(sensitivity: Values, kept: Sequence[str]) -> str:
    """A bar for every module: the points that it loses alone in INT8, as SVG."""
    rows = [(row["module"], row["drop"]) for row in sensitivity["modules"]]
    return bar_chart(rows, title="what each module loses alone in INT8", unit="points", highlight=kept)


def int8_verdict(bundle: str, engines: Mapping[str, Values], decision: Values, *, lean: bool = False) -> list[str]:
    """Whether INT8 is worth it, in sentences: by what was measured on a device, else the command that decides it.

    ``engines`` has `EngineReport.to_json` of both plans, or nothing where none was built; what kernels and sizes are is
    a fact and says nothing of speed, and what both move says what memory has to do. ``decision`` is that of
    `hiresvit.workflows.decide`, ``bundle`` the folder's name as it is typed, ``lean`` the policy's.
    """
    said = []
    if len(engines) > 1:
        half, int8 = engines["fp16"], engines["int8"]
        smaller = 1 - int8["plan_bytes"] / half["plan_bytes"]
        said = [
            f"the INT8 plan has {int8['kernel_total']} kernels where FP16 has {half['kernel_total']},"
            f" and is {abs(smaller):.0%} {'smaller' if smaller > 0 else 'larger'}",
            _moved(half, int8, lean=lean),
        ]
    if accuracy := decision["accuracy"]:
        lost = accuracy["rows"]["fp16"] - accuracy["rows"]["int8"]
        said.append(f"INT8 costs {lost:.2f} points of {accuracy['metric']} against FP16")
    if decision["recommended"]:
        return [*said, _decided(decision)]
    where, built, there = shlex.quote(bundle), len(engines) > 1, "hiresvit bench fp16.plan int8.plan"
    here = f"hiresvit bench {shlex.quote(f'{bundle}/fp16.plan')} {shlex.quote(f'{bundle}/int8.plan')}"
    anew = f"hiresvit build {where} -o fp16.plan && hiresvit build {where} --graph int8 -o int8.plan && {there}"
    return [
        *said,
        f"whether INT8 is worth it is undecided: {decision['undecided']}; it must be {decision['least_speedup']:g}"
        " times as fast as FP16",
        *([f"this decides it on a device that runs these plans: {here}"] if built else []),
        f"this decides it on {'any other' if built else 'the'} board: {anew}",
    ]


def _moved(half: Values, int8: Values, *, lean: bool) -> str:
    """What both plans move for one call, and what follows where memory is the limit."""
    plans = {"fp16": half.get("traffic"), "int8": int8.get("traffic")}
    if missing := [name for name, moved in plans.items() if not moved or moved["untold"]]:
        return (
            "what INT8 moves beside FP16 is not known: TensorRT does not say the sizes of all tensors of the plan"
            f" {' and of '.join(missing)}"
        )
    sides = {name: _sides(moved) for name, moved in plans.items() if moved}
    factor = round(sum(sides["int8"]) / sum(sides["fp16"]), 2)
    said = " against ".join(
        f"{activations / 1e6:,.1f} MB of activations and {weights / 1e6:,.1f} of weights"
        for activations, weights in (sides["int8"], sides["fp16"])
    )
    facts = f"INT8 moves {factor:.2f} times what FP16 moves ({said})"
    if factor <= 1:
        return facts
    less = "" if lean or int8["backend"] != "tensorrt_rtx" else "; --int8-lean quantizes only what moves less there"
    return (
        f"{facts}: at batch 1, on a board whose memory is the limit, INT8 of {TITLES[int8['backend']]} is not for"
        f" this network{less}"
    )


def _sides(moved: Values) -> tuple[int, int]:
    """Bytes of activations and of weights."""
    return moved["read_bytes"] + moved["written_bytes"], moved["weight_bytes"]


def _decided(decision: Values) -> str:
    """What was measured, and what follows."""
    speedup, latency = decision["speedup"], decision["latency"]
    times = " against ".join(f"{latency[name]['median_ms']:.3f} ms" for name in ("int8", "fp16"))
    least = decision["least_speedup"]
    facts = f"INT8 is {speedup['median']:.3f} times as fast as FP16 here ({times} a call; {least:g} is the least)"
    if decision["max_drop"] is not None and decision["accuracy"]:
        rows = decision["accuracy"]["rows"]
        lost = f"{rows['fp32'] - rows['int8']:.2f} points of {decision['accuracy']['metric']}"
        facts += f" and loses {lost} to FP32 ({decision['max_drop']:g} may be lost)"
    if decision["recommended"] == "int8":
        return f"INT8 is worth it: {facts}; run int8.plan"
    return f"stay with FP16: {facts}; run fp16.plan"


def accuracy_tables(accuracy: Values) -> list[RenderableType]:
    """A line, since it is wider than the table, and FP32 beside what was made of it, on the same pictures."""
    pictures = f"{accuracy['images']} pictures of {accuracy['data']} that did not calibrate"
    by_graph = accuracy["rows"]
    rows = [
        (name, f"{by_graph[name]:.2f}", f"{round(by_graph['fp32'] - by_graph[name], 2) + 0.0:.2f}")
        for name in ("fp32", "fp16", "int8", "a16w8", "a8w8")  # JSON does not keep the order
        if name in by_graph
    ]
    table = make_table(None, "graph", f">{accuracy['metric']} %", ">points below FP32", rows=rows)
    return [f"\n{accuracy['metric']} on {pictures}", table]


def calibration_lines(found: Values, what: str) -> list[str]:
    """What was measured of which pictures, for the graph ``what``."""
    lines = [
        f"{what}: ranges of {found['tensors']} tensors by {found['method']} on {found['images']} pictures of"
        f" {found['source']}"
    ]
    lines += [f"note: skipped {reason}" for reason in found["skipped"]]
    if found["images"] < found["asked"]:
        lines.append(f"note: {found['asked']} pictures were asked for, there were {found['images']} to calibrate with")
    if found["small"]:
        lines.append(f"note: {found['small']} of the pictures are smaller than the network's input")
    if found["dead"]:
        lines.append(f"note: {len(found['dead'])} tensors are 0 on every picture: {', '.join(found['dead'][:3])}")
    return lines


def _layer_lines(made: Values) -> list[str]:
    total = made["macs_total"] or 1
    lines = [f"int8: {made['sites_int8']} layers in INT8, {100 * made['macs_share']:.1f} % of their products"]
    if made["sites_fp16"]:
        shares = {rule: f"{100 * made['macs_fp16'].get(rule, 0) / total:.1f} %" for rule in made["sites_fp16"]}
        kept = ", ".join(f"{count} {rule} ({shares[rule]})" for rule, count in made["sites_fp16"].items())
        lines.append(f"int8: in FP16 stay {kept}")
    if made["attentions_int8"] or made["attentions_fp16"]:
        left = ", ".join(f"{count} ({why})" for why, count in made["attentions_fp16"].items()) or "none"
        lines.append(f"int8: {made['attentions_int8']} attentions in INT8, in FP16 stay {left}")
    return lines


def fallback_line(found: Values, what: str, stays: str) -> str:
    """Which modules of ``what`` the search left ``stays``: in FP16, or with 16 bits."""
    kept = found["kept"]
    stay = f"{len(kept)} modules stay {stays} ({', '.join(kept)})" if kept else f"no module needs to stay {stays}"
    return f"{what}: {stay} for at most {found['max_drop']:g} points, found in {found['tried']} trials"
