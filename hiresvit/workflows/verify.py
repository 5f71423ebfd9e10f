"""`hiresvit verify`: whether a bundle is whole, answers here as it did where it was exported, and says true numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiresvit.bundle.folder import Bundle, read_bundle
from hiresvit.bundle.golden import Golden, read_pair
from hiresvit.bundle.manifest import short
from hiresvit.bundle.stages import GRAPHS, PLANS, RUNNABLE, STAGES
from hiresvit.errors import ArtefactError, GateError, HiresvitError, MissingDependency, UsageError, refused
from hiresvit.progress import OnStep, silent
from hiresvit.runtime.open import find_backend
from hiresvit.runtime.preflight import check_file
from hiresvit.workflows.inspect import graph_summary
from hiresvit.workflows.open import htp_roles, open_role
from hiresvit.workflows.replay import picture_failures, replay_pair

# Of several findings the one that decides how the command ends: what is wrong with the files comes first.
_ORDER = (ArtefactError.exit_code, GateError.exit_code, MissingDependency.exit_code)


def verify_bundle(
    folder: Path,
    *,
    runners: Sequence[str] = (),
    graphs: Sequence[str] = (),
    weights: str | None = None,
    threads: int | None = None,
    on_step: OnStep = silent,
) -> tuple[dict[str, Any], HiresvitError | None]:
    """What was found, as plain JSON values, and what ends the command if anything is wrong.

    Every sum is checked, the golden pair replayed through each of ``graphs`` (by default all files that can run) by
    each of ``runners``, and what the manifest says of graphs and plans held against the files. ``weights`` are the
    checkpoint, or ``fresh``: then the parity of the report is computed again with PyTorch (`recheck`). A plan that
    cannot run here is a finding only if it was asked for; whatever fails, the rest is looked at all the same.

    Raises ArtefactError for a bundle that is damaged, and UsageError for a name that is none.
    """
    bundle = read_bundle(folder)
    golden = read_pair(bundle)
    findings: list[HiresvitError] = [
        ArtefactError(f"{bundle.path('golden')}: {what}") for what in picture_failures(bundle, golden)
    ]
    findings += _described(bundle)
    plans = [_plan(bundle, role, findings) for role in PLANS if _has(bundle, role)]
    sides = []
    for runner, role in _pairs(bundle, runners, graphs):
        on_step(f"replay: {role}", None)
        asked = role not in PLANS or bool(runners) or role in graphs
        running = (runner, threads)
        sides.append(_side(bundle, golden, role, running, asked=asked, findings=findings, on_step=on_step))
    parity = None
    if weights is not None:
        from hiresvit.workflows.recheck import recheck

        try:
            parity = recheck(bundle, weights, threads=threads, on_step=on_step)
            findings += [GateError(line) for stage in parity["stages"] for line in stage["differs"]]
        except HiresvitError as error:
            findings.append(error)
    manifest = bundle.manifest
    found = {
        "bundle": bundle.folder.resolve().name,
        "created": manifest.created,
        "hiresvit": manifest.tools.get("hiresvit"),
        "files": [asdict(entry) for entry in manifest.files],
        "unlisted": list(bundle.unlisted),
        "sides": sides,
        "plans": plans,
        "parity": parity,
        "findings": [error.to_json() for error in findings],
    }
    return found, _worst(findings)


def _worst(findings: Sequence[HiresvitError]) -> HiresvitError | None:
    """The finding that ends the command, with the number of the others."""
    rank = {code: number for number, code in enumerate(_ORDER)}
    ordered = sorted(findings, key=lambda error: rank.get(error.exit_code, len(rank)))
    if len(ordered) < 2:
        return next(iter(ordered), None)
    return type(ordered[0])(f"{ordered[0]} (and {len(ordered) - 1} more)")


def _has(bundle: Bundle, role: str) -> bool:
    return any(entry.role == role for entry in bundle.manifest.files)


def _pairs(bundle: Bundle, runners: Sequence[str], graphs: Sequence[str]) -> list[tuple[str | None, str]]:
    """Each runner with each file that it opens.

    Raises UsageError for a runner that opens none, or is none, and ArtefactError for a file that the bundle lacks.
    """
    if unknown := [role for role in graphs if role not in RUNNABLE]:
        raise UsageError(f"--graph {unknown[0]}: one of {', '.join(RUNNABLE)}")
    roles = list(dict.fromkeys(graphs)) or [role for role in RUNNABLE if _has(bundle, role)]
    paths = {role: bundle.path(role) for role in roles}
    if not runners:
        return [(None, role) for role in roles]
    pairs: list[tuple[str | None, str]] = []
    for runner in dict.fromkeys(runners):
        refusals = []
        own = None if graphs else htp_roles(bundle.folder, roles, runner)
        for role, path in paths.items():
            if own is not None and role not in own:
                continue
            try:
                find_backend(path, runner)
            except UsageError as error:
                refusals.append(error)
            else:
                pairs.append((runner, role))
        if len(refusals) == len(roles):
            raise refusals[0]
    return pairs


def _side(
    bundle: Bundle,
    golden: Golden,
    role: str,
    running: tuple[str | None, int | None],
    *,
    asked: bool,
    findings: list[HiresvitError],
    on_step: OnStep,
) -> dict[str, Any]:
    """The golden pair through one file by a runner and its threads; what is wrong is added to ``findings``."""
    runner, threads = running
    row: dict[str, Any] = {"graph": role, "runner": runner, "origin": None, "gate": None, "report": None}
    row |= {"answer": None, "verdict": "", "why": None}
    name = f"{bundle.folder.name}/{role}" + (f" ({runner})" if runner else "")
    try:
        source = open_role(bundle, role, runner=runner, threads=threads)
    except (HiresvitError, OSError) as error:
        failed = error if isinstance(error, HiresvitError) else refused(error) or HiresvitError(str(error))
        row |= {"verdict": "did not start" if asked else "not run here", "why": str(failed)}
        if asked:
            findings.append(failed)
        return row
    with source.runner as network:
        row["origin"] = dict(source.origin)
        if source.waits:
            on_step(f"replay: {role}, emulated, about {source.waits:.0f} s", None)
        try:
            replay = replay_pair(bundle.manifest, golden, network, role)
        except (KeyError, UsageError) as error:  # other names or shapes
            wrong = ArtefactError(f"{name}: the golden pair is not of this network: {error}; export the bundle again")
            findings.append(wrong)
            return row | {"verdict": "does not fit", "why": str(wrong)}
        except HiresvitError as error:  # NaN, or the runtime failed on the input
            missed: HiresvitError = GateError(f"{name}: no answer to the golden input: {error}")
            findings.append(missed)
            return row | {"verdict": "missed", "why": str(missed)}
    row |= {"gate": replay.gate, "report": replay.report, "answer": replay.answer, "verdict": "passed"}
    if replay.failures:
        whys = [line.partition("; --")[0] for line in replay.failures]  # no option of verify's would lift it
        row |= {"verdict": "missed", "why": "; ".join(whys)}
        findings.append(GateError(f"{name} does not answer the golden input as PyTorch did: {whys[0]}"))
    return row


def _described(bundle: Bundle) -> list[HiresvitError]:
    """Where the manifest's counts of a graph are not the file's; without onnx only bytes can be counted."""
    found: list[HiresvitError] = []
    for role in GRAPHS:
        stated = bundle.manifest.graphs.get(role)
        if stated is None or not _has(bundle, role):
            continue
        try:
            counted = graph_summary(bundle.path(role))
        except HiresvitError as error:
            found.append(ArtefactError(str(error)))
            continue
        differing = [key for key, value in counted.items() if value is not None and stated.get(key) != value]
        found += [
            ArtefactError(
                f"{bundle.path(role)} has {key} {counted[key]}, the manifest says {stated.get(key)}; export it again"
            )
            for key in differing[:1]
        ]
    return found


def _plan(bundle: Bundle, role: str, findings: list[HiresvitError]) -> dict[str, Any]:
    """Whether a plan is what stands beside it and in the manifest, and was built from the bundle's own graph."""
    path, graph = bundle.path(role), STAGES[role].parent
    assert graph is not None  # a plan is made from a graph
    row: dict[str, Any] = {"plan": role, "graph": graph, "backend": None, "version": None, "verdict": "matches"}
    row |= {"compute_capability": None, "device": None, "why": None}
    try:
        header, sidecar = check_file(path)
        row |= asdict(header)
        if sidecar is None:
            return row | {"verdict": "unknown", "why": "nothing beside it says what it was built from"}
        report = sidecar.report
        row |= {name: getattr(report, name) for name in ("version", "compute_capability", "device")}
        sums = {entry.role: entry.sha256 for entry in bundle.manifest.files}
        if sidecar.graph_sha256 != sums.get(graph):
            raise ArtefactError(
                f"{path} is stale: it was built from a graph {short(sidecar.graph_sha256)}, and {STAGES[graph].file} is"
                f" {short(sums.get(graph))}; build it again: hiresvit build {bundle.folder} --graph {graph}"
            )
        stated, counted = bundle.manifest.engines.get(graph, {}), report.to_json()
        for key, value in stated.items():
            if _plain(counted.get(key)) != _plain(value):
                raise ArtefactError(f"{path}: the manifest says another {key} than the file beside it; export it again")
    except HiresvitError as error:
        findings.append(error)
        row |= {"verdict": "stale" if " is stale: " in str(error) else "damaged", "why": str(error)}
    return row


def _plain(value: Any) -> Any:
    """With lists for tuples, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
