"""Rules about forms of operators that a target has: its row says which are refused, ruled out or doubted."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hiresvit.check import axis_forms, htp_forms, layer_forms  # noqa: F401 - they fill FORMS
from hiresvit.check.forms import FORMS, Look
from hiresvit.check.nvidia_parser import names
from hiresvit.check.rule import Spot, View, rule, scopes
from hiresvit.graph.index import attributes
from hiresvit.graph.operators import RECURRENT

_RANDOM = names("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike")


@rule("illegal", "{target} does not take this form of the operator: choose another")
def form(view: View) -> Iterator[Spot]:
    """A form of an operator that the parser's importer or the builder refuses."""
    return _having(view, view.target.refused)


@rule(
    lambda target: "illegal" if target.ruled_out else None,
    "documented as unsupported by the parser of {target} (TensorRT-RTX 1.7 may take it, untried there): choose another "
    "form",
)
def ruled_out(view: View) -> Iterator[Spot]:
    """A form of an operator that the target's documents rule out, tried or not."""
    return _having(view, view.target.ruled_out)


@rule(
    lambda target: "hazard" if target.doubted else None,
    "what is written about the parser of {target} leaves open whether it takes this, and it was not tried there: "
    "choose another form",
)
def doubted(view: View) -> Iterator[Spot]:
    """A form that later releases say they brought or mended, and the target's own documents do not name."""
    return _having(view, view.target.doubted)


@rule("hazard", "{target} builds it as if that were not there, so that the numbers are others: write it differently")
def ignored(view: View) -> Iterator[Spot]:
    """What the parser passes over without a word."""
    for node in (node for scope in scopes(view) for node in scope.nodes):
        given = attributes(node)
        if node.op_type in RECURRENT and given.get("layout"):
            yield node, f"the layout of a {node.op_type}"
        if node.op_type in _RANDOM and given.get("seed"):
            yield node, f"the seed of a {node.op_type}"


def _having(view: View, forms: Collection[str]) -> Iterator[Spot]:
    looks: dict[str, list[Look]] = {}
    for ops, look in (FORMS[name] for name in sorted(forms)):
        for op in ops:
            looks.setdefault(op, []).append(look)
    for scope in scopes(view):
        for node in scope.nodes:
            for look in looks.get(node.op_type, ()):  # whatever its domain: the parser goes by the name
                if what := look(scope, node):
                    yield node, f"{node.op_type} with {what}"
