"""What whoever reads a report must know before the numbers, in plain words: the worst first.

An alarm says that a number is not of what it stands beside, or that something failed; a warning that a number means
less than it seems; a note is a line that the commands themselves said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hiresvit.bundle.stages import PLANS
from hiresvit.report.latency import other_marks
from hiresvit.report.sweep_words import sweep_cautions
from hiresvit.report.tables import Values

Caution = dict[str, str]

LEVELS = ("alarm", "warning", "note")


def cautions(page: Values) -> list[Caution]:
    """Every line once, alarms first."""
    found = [
        *(line for result in page["results"] for line in _of_result(result)),
        *(line for bundle in page["bundles"] for line in _of_bundle(bundle, page["rows"])),
        *_imitated(page["rows"]),
        *(sweep_cautions(page["sweep"]) if page["sweep"] else ()),
    ]
    unique = [dict(pairs) for pairs in dict.fromkeys(tuple(line.items()) for line in found)]
    return sorted(unique, key=lambda line: LEVELS.index(line["level"]))


def _say(level: str, about: str, text: str) -> Caution:
    return {"level": level, "about": about, "text": text}


def _of_result(result: Values) -> Iterator[Caution]:
    file, document = result["file"], result["document"]
    for side in result["sides"]:
        yield from _whose(file, side)
    if error := document.get("error"):
        yield _say("alarm", file, f"the command ended with an error: {error['message']}")
    if accuracy := document.get("accuracy"):
        if accuracy.get("complete") is False:
            asked = accuracy["dataset"].get("pictures")
            of = f" of {asked}" if asked else ""
            yield _say("warning", file, f"the evaluation was stopped after {accuracy['images']}{of} pictures")
        for side in accuracy["sides"]:
            yield from _failed(file, side["name"], side)
            keeps = (side.get("against") or {}).get("keeps")
            if keeps and keeps.startswith("less"):
                yield _say("warning", file, f"{side['name']} keeps {keeps} of the first side's accuracy")
    if latency := document.get("latency"):
        yield from _of_latency(file, latency)
    for finding in (document.get("verify") or {}).get("findings", ()):
        yield _say("alarm", file, finding["message"])
    for note in document.get("notes", ()):
        yield _say("note", file, note)


def _of_latency(file: str, latency: Values) -> Iterator[Caution]:
    if latency.get("complete") is False:
        yield _say("warning", file, f"the measurement is not complete: {latency.get('stopped') or 'it was stopped'}")
    for reason in (latency.get("environment") or {}).get("throttled") or ():
        yield _say("alarm", file, f"the device throttled while it was measured: {reason}")
    said: dict[str, list[str]] = {}
    for name, side in latency["sides"].items():
        yield from _failed(file, name, side)
        for warning in side["warnings"] if not side.get("failure") else ():
            said.setdefault("unstable" if warning.startswith("unstable") else warning, []).append(name)
    for warning, names in said.items():
        whose = "" if len(names) == len(latency["sides"]) else f" ({', '.join(names)})"
        text = warning
        if warning == "unstable":
            most = max(latency["sides"][name]["cv_percent"] or 0.0 for name in names)
            text = f"unstable, the coefficient of variation is up to {most:.1f} %"
        yield _say("warning", file, text + whose)
    for mark in other_marks(latency):
        if not mark.startswith("throttled:"):  # that stands above
            yield _say("alarm" if "throttl" in mark else "warning", file, mark)


def _whose(file: str, side: Values) -> Iterator[Caution]:
    """Whether a result's side is a file of a given bundle."""
    origin = side["origin"]
    name = origin.get("file") or origin.get("role") or "a side"
    digest = (origin.get("sha256") or "")[:12]
    if side["state"] == "other":
        yield _say(
            "alarm",
            file,
            f"measured ANOTHER FILE: its {name} of {origin['bundle']} has sha256 {digest}, and the {side['role']} file"
            f" of the bundle {side['bundle']} here has another sum; its numbers are not those of this bundle",
        )
    elif side["state"] == "apart" and digest:
        yield _say("note", file, f"{name} (sha256 {digest}) is in no bundle of this report; its numbers stand alone")


def _failed(file: str, name: str, side: Values) -> Iterator[Caution]:
    if failure := side.get("failure"):
        how = f"failed after {side['calls']} calls" if side.get("calls") else "was not measured"
        yield _say("alarm", file, f"{name} {how}: {failure['message']}")


def _of_bundle(bundle: Values, rows: Sequence[Values]) -> Iterator[Caution]:
    name = bundle["name"]
    if bundle["weights"]["sha256"] is None:
        source = bundle["weights"]["source"]
        yield _say("warning", name, f"nobody trained its weights ({source}): no accuracy of it means anything")
    plans = {entry["role"]: entry["sha256"] for entry in bundle["files"] if entry["role"] in PLANS}
    ran = {row["origin"]["sha256"] for row in rows if row["modes"] or row["accuracy"]}
    if plans and not ran & set(plans.values()):
        yield _say(
            "warning",
            name,
            "its engines have not run: they were built and their kernels counted, which is no latency; copy the bundle"
            " to the device and run hiresvit bench and hiresvit eval with -o there",
        )
    for note in bundle["notes"]:
        yield _say("note", name, note)
    for file in bundle["unlisted"]:
        yield _say("note", name, f"{file} lies in the folder and is no part of the bundle")


def _imitated(rows: Sequence[Mapping[str, Any]]) -> Iterator[Caution]:
    """Graphs of FP16 and INT8 whose time was taken on a CPU, which computes both by way of FP32."""
    timed = [row for row in rows if row["modes"] and row["origin"]["role"] in ("fp16", "int8")]
    if names := [row["name"] for row in timed if row["origin"]["device"] == "CPU"]:
        yield _say(
            "warning",
            ", ".join(dict.fromkeys(names)),
            "timed on a CPU, which imitates FP16 and INT8: their answers count, their times say nothing about a GPU",
        )
