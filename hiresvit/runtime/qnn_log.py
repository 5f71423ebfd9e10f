"""What ONNX Runtime and Qualcomm's library write into their log, and say nowhere else."""

from __future__ import annotations

import re

from hiresvit.device.context import Refused

_VERDICT = re.compile(
    r"LogNodeSupport\] Validation FAILED for \d+ nodes in OrtNodeUnit \((?P<op>[^)]*)\) :\n"
    r"(?P<nodes>(?:\tOperator type: .*\n)*)\tREASON : (?P<reason>.*)"
)
_NODE = re.compile(r"\tOperator type: (?P<op>\S+) Node name: (?P<name>.*?) Node index: \d+\n")
_BACKEND = re.compile(r"^\[\d+\] (?P<source>\w+)\.cc:\d+::ERROR:(?P<what>.*)$", re.MULTILINE)
_CHECKED = re.compile(r"Qnn_OpConfig node name: (?P<name>\S+) (?P<tensors>.*(?:\n .*)*)")
_TENSOR = re.compile(r"^ name=(\S+) id=", re.MULTILINE)
_WARNING = re.compile(r"\[[WE]:onnxruntime:[^,]*, \S+ (?P<who>[\w()]+)\] (?P<what>.*?)(?:\x1b\[m)?$", re.MULTILINE)
_NAMES = re.compile(r"_token_\d+`")
# Said of this library everywhere, of a tensor between HTP and CPU, and of refused nodes, which are listed.
_NO_WARNINGS = {
    *("QnnEp", "EpContextIoDispatch", "GetProducerInfo", "VerifyEachNodeIsAssignedToAnEp"),
    *("CreateQnnNode", "GetCapabilityImpl", "operator()"),
}
_TOKEN = re.compile(r"_token_\d+$")  # what the change to channels last puts behind a node's name


def refused_nodes(log: str) -> tuple[Refused, ...]:
    """The nodes that a verbose log of opening says are refused, each once, in the graph's order.

    Each is tried twice, before and after ONNX Runtime puts channels last. Of a unit of several, as an operator between
    DequantizeLinear and QuantizeLinear, it is the operator.
    """
    found: dict[str, Refused] = {}
    for verdict in _VERDICT.finditer(log):
        for node in _NODE.finditer(verdict["nodes"]):
            if node["op"] == verdict["op"]:
                name = node_name(node["name"])
                found.setdefault(name, Refused(name, module_of(name), node["op"], verdict["reason"].strip()))
    return tuple(found.values())


def backend_error(log: str) -> tuple[str, str] | None:
    """The kernel of Qualcomm's library that failed in a run, and what it says: ``("concat", "mismatched dim 1")``."""
    first = _BACKEND.search(log)
    return (first["source"], first["what"].strip()) if first else None


def node_name(name: str) -> str:
    """A node's name as it stands in the graph."""
    return _TOKEN.sub("", name)


def module_of(node: str) -> str:
    """The PyTorch module of a node that is named ``module.path/OpType``."""
    return node.rpartition("/")[0]


def tensors_of(log: str) -> dict[str, tuple[str, ...]]:
    """The tensors that each node reads and makes, as the log of checking it says."""
    return {
        node_name(block["name"]): tuple(node_name(name) for name in _TENSOR.findall(block["tensors"]))
        for block in _CHECKED.finditer(log)
    }


def warnings_of(log: str) -> tuple[str, ...]:
    """What the libraries warn of, each once, but for what they say of every graph and of the nodes that are refused."""
    found = [f"{line['who']}: {_NAMES.sub('`', line['what']).strip()}" for line in _WARNING.finditer(log)]
    found += [f"{line['source']}: {line['what'].strip()}" for line in _BACKEND.finditer(log)]
    return tuple(dict.fromkeys(line for line in found if line.partition(":")[0] not in _NO_WARNINGS))
