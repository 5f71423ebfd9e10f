"""A contract in words, and the table of how far the answers behind it are from PyTorch's."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from hiresvit.report.tables import Values, counted, make_table, number_text
from hiresvit.spec import ContractSpec, Task

_LAYOUTS = {"rgb": "RGB", "bgr": "BGR", "rgba": "RGBA, alpha not looked at", "bgra": "BGRA, alpha not looked at"}
_RAW = {"features": "feature maps", "masks": "classes and masks of queries", "detect": "classes and boxes of anchors"}
_COLOURS = {
    "bt601": "BT.601, limited range",
    "bt709": "BT.709, limited range",
    "bt601-full": "BT.601, full range",
    "bt709-full": "BT.709, full range",
}


def contract_text(contract: ContractSpec, task: Task) -> str:
    """In one line what goes in and what comes out."""
    if contract.name == "tensor":
        return f"tensor: normalised float pixels in, {_RAW.get(task, 'logits')} out"
    size = "x".join(map(str, contract.size or ()))
    whose = {"image": "the network's size", "camera": "the camera's size"}[contract.name]
    layout = f"NV12 ({_COLOURS[contract.yuv or 'bt709']})" if contract.pixels == "nv12" else _LAYOUTS[contract.pixels]
    return f"{contract.name}: uint8 pixels of {whose}, {size}, {layout} in, {_answer(contract, task, size)} out"


def _answer(contract: ContractSpec, task: Task, size: str) -> str:
    if task in _RAW:
        return _RAW[task]
    if task == "classify":
        best = "the best class" if contract.top_k == 1 else f"the {contract.top_k} best classes"
        return f"{best} as {contract.label_type} and the probabilities"
    also = " and uint8 confidence" if contract.confidence else ""
    return f"{contract.label_type} labels{also} of {size}"


def answers_table(parity: Values) -> Table:
    """One row per graph and output: what of the answers for pictures' files is another, and what the gate asks for."""
    if "pictures" in parity:
        title = f"answers behind the contract for {len(parity['pictures'])} pictures' files, held to PyTorch's"
    else:
        title = f"answers for {counted(parity['images'], 'image')}, held to {parity['reference']}"
    table = make_table(title, "graph", "what", ">differing", ">equal %", ">apart", "gate: equal %, apart")
    for stage in parity["stages"]:
        gate, report = stage["gate"], stage["report"]
        if "outputs" in report:
            for output in report["outputs"]:
                sqnr = "exact" if output["exact"] else f"{number_text(output['sqnr_db'], '.1f')} dB"
                table.add_row(stage["stage"], output["name"], "", "", sqnr, f"-, {gate['min_sqnr_db']:g} dB")
            continue
        most = gate["max_apart"]
        table.add_row(
            stage["stage"],
            f"{report['answers']} {report['unit']}",
            str(report["differing"]),
            f"{100 * report['agreement']:.4f}",
            _apart(report),
            f"{100 * gate['min_agreement']:g}, {'-' if most is None or report['apart'] is None else f'{most:g}'}",
        )
    return table


def _apart(report: Values) -> str:
    """Of a confidence in levels, of probabilities as the logarithm of their ratio."""
    apart: Any = report["apart"]
    if apart is None:
        return "-"
    return f"{apart:.4f} levels" if report["unit"] == "pixels" else f"{apart:.2e}"
