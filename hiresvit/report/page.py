"""What a report says, as plain JSON values: bundles, results beside the files that they measured, and one table of all.

Nothing is measured or read from a disk here. A result belongs to a file by the sha256 of its sides' ``origin``, never
by a name: one that names a file of a bundle by another sum is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hiresvit.bundle.stages import RUNNABLE
from hiresvit.report.accuracy import WORDS
from hiresvit.report.cautions import cautions
from hiresvit.report.documents import KIND, SCHEMA_VERSION
from hiresvit.report.sweep_words import sweep_cards
from hiresvit.report.tables import Values
from hiresvit.version import __version__

AT_EXPORT = "where it was exported"
_NOTHING = dict.fromkeys(("file", "sha256", "bytes", "role", "bundle", "backend", "version", "device", "threads"))

Row = dict[str, Any]


def make_page(
    bundles: Sequence[Values], results: Sequence[Values], *, created: str, sweep: Values | None = None
) -> dict[str, Any]:
    """The page of some bundles and results, of `PAGE_SCHEMA`, and of a ``sweep`` as `hiresvit.report.sweep` makes it.

    ``bundles`` are manifests with a ``name`` that no other has, that of their ``folder`` and the names of ``unlisted``
    files; ``results`` have the ``file`` that a ``document`` of a command was in. ``created`` is a time in UTC.
    """
    found = [{**result, "sides": _matches(result["document"], bundles)} for result in results]
    rows = _rows(bundles, found)
    page = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "hiresvit": __version__,
        "created": created,
        "rows": rows,
        "pareto": _pareto(rows),
        "bundles": list(bundles),
        "results": found,
        "sweep": sweep,
    }
    cards = list(sweep_cards(sweep)) if sweep else []
    cards += _glance(page) if bundles or results or not sweep else []
    return {**page, "warnings": cautions(page), "glance": cards}


def yardstick(accuracy: Values) -> str:
    """What an accuracy was measured by, in words: only numbers of the same words can be compared."""
    protocol, dataset = accuracy["protocol"], accuracy["dataset"]
    words = [f"{dataset['name']}, {accuracy['images']} pictures", f"protocol {protocol['name']}"]
    words += ["mirrored, too"] if protocol["flip"] else []
    scales = protocol["scales"]
    words += [f"scales {', '.join(f'{scale:g}' for scale in scales)}"] if scales != [1] else []
    words += [] if dataset["ignore"] is None else [f"label {dataset['ignore']} ignored"]
    return ", ".join(words)


def runs_on(origin: Values) -> str:
    """What computed, in words; "" where nobody says."""
    device = origin.get("device") or ""
    runtime = " ".join(filter(None, (origin.get("backend"), origin.get("version"))))
    threads = f", {origin['threads']} threads" if origin.get("threads") else ""
    said = threads + (", emulated" if origin.get("emulated") else "")
    return f"{runtime} on {device}{said}" if device else runtime + said


def origins_of(value: Any) -> Iterator[Values]:
    """Every ``origin`` in a document, wherever it stands."""
    if isinstance(value, Mapping):
        if isinstance(value.get("origin"), Mapping):
            yield value["origin"]
        for inside in value.values():
            yield from origins_of(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from origins_of(inside)


def match(origin: Values, bundles: Sequence[Values]) -> dict[str, Any]:
    """Which file of the bundles an origin is: its ``state`` is one of `STATES`, and then where it lies."""
    digest, named = origin.get("sha256"), origin.get("bundle")
    ordered = sorted(bundles, key=lambda bundle: bundle["folder"] != named)
    for bundle in ordered if digest else []:
        for entry in bundle["files"]:
            if entry["sha256"] == digest:
                return {"origin": origin, "state": "same", "bundle": bundle["name"], "role": entry["role"]}
        if bundle["weights"]["sha256"] == digest:
            return {"origin": origin, "state": "weights", "bundle": bundle["name"], "role": "pytorch"}
    for bundle in bundles:
        if bundle["folder"] == named and any(entry["role"] == origin.get("role") for entry in bundle["files"]):
            return {"origin": origin, "state": "other", "bundle": bundle["name"], "role": origin["role"]}
    return {"origin": origin, "state": "apart", "bundle": None, "role": origin.get("role")}


def _matches(document: Values, bundles: Sequence[Values]) -> list[dict[str, Any]]:
    """Each file that a document names, once."""
    found: list[dict[str, Any]] = []
    for origin in origins_of(document):
        one = match(origin, bundles)
        if one not in found:
            found.append(one)
    return found


def _rows(bundles: Sequence[Values], results: Sequence[Values]) -> list[Row]:
    """A row for each file, what ran it, on which machine and by which yardstick it was measured."""
    rows: list[Row] = []
    for number, result in enumerate(results):
        if latency := result["document"].get("latency"):
            for name in latency["sides"]:
                _take_latency(rows, latency, name, number)
    for bundle in bundles:
        _take_export(rows, bundle)
    for number, result in enumerate(results):
        if accuracy := result["document"].get("accuracy"):
            for side in accuracy["sides"]:
                _take_accuracy(rows, accuracy, side, number)
    known = {row["origin"]["sha256"] for row in rows}
    for bundle in bundles:
        for entry in bundle["files"]:
            if entry["role"] in RUNNABLE and entry["sha256"] not in known:
                rows.append(_row(_origin(bundle, entry["role"]), f"{bundle['name']}/{entry['role']}", None))
    return _placed(rows, bundles)


def _placed(rows: Iterable[Row], bundles: Sequence[Values]) -> list[Row]:
    """Rows by the names of the bundles' files, in their order, and then the others."""
    places = [bundle["name"] for bundle in bundles]
    roles = ("pytorch", *RUNNABLE)
    found: list[tuple[int, int, Row]] = []
    for row in rows:
        where = match(row["origin"], bundles)
        state, bundle, role = where["state"], where["bundle"], where["role"]
        ours = state in ("same", "weights")
        name = f"{bundle}/{role}" if ours else row["name"]
        place = places.index(bundle) if ours else len(places)
        found.append((place, roles.index(role) if role in roles else len(roles), {**row, "name": name, "state": state}))
    return [row for *_, row in sorted(found, key=lambda one: one[:2])]


def _row(origin: Values, name: str, machine: str | None) -> Row:
    empty: Row = {"yardstick": None, "accuracy": None, "modes": {}}
    return {"name": name, "origin": {**_NOTHING, **origin}, "machine": machine, **empty}


def _alike(row: Row, origin: Values, name: str) -> bool:
    """Whether a row is of this file, run by the same thing; what has no file is known by its name."""
    own = row["origin"]
    if own["sha256"] != origin.get("sha256") or (own["sha256"] is None and row["name"] != name):
        return False
    return all(own[key] == origin.get(key) for key in ("backend", "device"))


def _take_latency(rows: list[Row], latency: Values, name: str, number: int) -> None:
    """Put a side's times into the row of its file and machine; a second measurement of a mode has a row of its own."""
    side, mode = latency["sides"][name], latency.get("mode") or "call"
    if side.get("median_ms") is None:
        return
    origin, machine = side.get("origin") or {}, machine_of(latency.get("environment"))
    measured = {key: side.get(key) for key in ("median_ms", "p90_ms", "p99_ms", "throughput")}
    power = (latency.get("power") or {}).get(name) or {}
    measured |= {key: power.get(key) for key in ("watts", "joules_per_frame")} | {"result": number}
    for row in rows:
        if _alike(row, origin, name) and row["machine"] == machine and mode not in row["modes"]:
            row["modes"][mode] = measured
            return
    rows.append({**_row(origin, name, machine), "modes": {mode: measured}})


def _take_export(rows: list[Row], bundle: Values) -> None:
    """What the export measured of the graphs that nobody has measured since."""
    known = {row["origin"]["sha256"] for row in rows}
    for role, side in ((bundle["latency"] or {}).get("sides") or {}).items():
        origin = _origin(bundle, role) | {"device": "CPU", "threads": bundle["latency"]["threads"]}
        origin["backend"] = "PyTorch" if role == "pytorch" else "ONNX Runtime"
        if origin["sha256"] is None or origin["sha256"] not in known:
            measured = {key: side[key] for key in ("median_ms", "p90_ms", "p99_ms", "throughput")}
            measured |= {"watts": None, "joules_per_frame": None, "result": None}
            rows.append({**_row(origin, f"{bundle['name']}/{role}", AT_EXPORT), "modes": {"call": measured}})


def _origin(bundle: Values, role: str) -> dict[str, Any]:
    """A file of a bundle, or its weights, as a result would name it."""
    named = {**_NOTHING, "role": role, "bundle": bundle["folder"]}
    if role == "pytorch":
        weights = bundle["weights"]
        return named | {"file": weights["source"], "sha256": weights["sha256"], "bundle": None}
    entry = next((entry for entry in bundle["files"] if entry["role"] == role), None)
    return named | ({"file": entry["name"], **{k: entry[k] for k in ("sha256", "bytes")}} if entry else {})


def _take_accuracy(rows: list[Row], accuracy: Values, side: Values, number: int) -> None:
    """Put a side's accuracy into every row of its file, beside what another yardstick found into a copy of the row."""
    metrics, origin = side["metrics"], side["origin"] or {}
    metric = next((name for name in WORDS if (metrics.get(name) or {}).get("value") is not None), None)
    if metric is None:
        return
    seen = {key: metrics[metric][key] for key in ("value", "low", "high")}
    seen |= {"metric": WORDS[metric], "result": number}
    found = {"yardstick": yardstick(accuracy), "accuracy": seen}
    alike = [row for row in rows if _alike(row, origin, side["name"])]
    if not alike:
        rows.append({**_row(origin, side["name"], None), **found})
    for row in alike:
        if row["accuracy"] is None:
            row.update(found)
    taken = {row["machine"] for row in alike if row["accuracy"] == found["accuracy"]}
    for row in {row["machine"]: row for row in alike if row["machine"] not in taken}.values():
        rows.append({**row, **found})


def machine_of(environment: Values | None) -> str | None:
    """The machine of a measurement in words, with its power mode; None if nobody says."""
    if not environment:
        return None
    words = [environment.get(key) for key in ("board", "host", "power_mode")]
    return ", ".join(str(word) for word in words if word) or None


def _pareto(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracy against time for each yardstick and mode: what was measured otherwise is not set beside it."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        accuracy = row["accuracy"]
        for mode, measured in row["modes"].items() if accuracy else ():
            device = row["origin"]["device"] or row["origin"]["backend"] or ""
            point = {
                "name": row["name"],
                "machine": ", ".join(filter(None, (device, row["machine"]))) or "a machine nobody named",
                "latency_ms": measured["median_ms"],
                **{key: accuracy[key] for key in ("value", "low", "high")},
            }
            groups.setdefault((row["yardstick"], accuracy["metric"], mode), []).append(point)
    return [
        {"yardstick": words, "metric": metric, "mode": mode, "points": points}
        for (words, metric, mode), points in groups.items()
    ]


def left_out(page: Values) -> str:
    """What rows' names begin with on a page of one bundle, and need not be said."""
    return f"{page['bundles'][0]['name']}/" if len(page["bundles"]) == 1 else ""


def _glance(page: Values) -> list[dict[str, Any]]:
    """The numbers that are asked for first, each with what it is of; a value is None where nothing was measured."""
    rows = page["rows"]
    seen = [row for row in rows if row["accuracy"]]
    best = max(seen, key=lambda row: float(row["accuracy"]["value"]), default=None)
    alone = left_out(page)
    cards = [_parity_card(page["bundles"]), _card("accuracy", None, "no eval result was given")]
    if best is not None:
        said, others = best["accuracy"], len({row["yardstick"] for row in seen}) - 1
        more = f"; {others} other yardsticks below" if others else ""
        interval = "" if said["low"] is None else f" ({said['low']:.2f} to {said['high']:.2f})"
        detail = f"{best['name'].removeprefix(alone)}{interval} on {best['yardstick']}{more}"
        cards[1] = _card("accuracy", f"{said['value']:.2f} % {said['metric']}", detail)
    timed = [(row, mode) for mode in ("frame", "call") for row in rows if mode in row["modes"]]
    frames = [one for one in timed if one[1] == timed[0][1]]
    if frames:
        row, mode = min(frames, key=lambda one: float(one[0]["modes"][one[1]]["median_ms"]))
        measured = row["modes"][mode]
        tail = "" if measured["p99_ms"] is None else f", p99 {measured['p99_ms']:.2f} ms"
        detail = f"{row['name'].removeprefix(alone)}{tail}; {runs_on(row['origin'])}"
        cards.append(_card(f"fastest {mode}", f"{measured['median_ms']:.2f} ms", detail))
    else:
        cards.append(_card("frame time", None, "no bench result was given"))
    powered = [(m["joules_per_frame"], row) for row in rows for m in row["modes"].values() if m["joules_per_frame"]]
    if powered:
        joules, row = min(powered, key=lambda one: float(one[0]))
        cards.append(
            _card(
                "least energy",
                f"{joules:.3g} J a frame",
                f"{row['name'].removeprefix(alone)}; {runs_on(row['origin'])}",
            )
        )
    else:
        cards.append(_card("energy", None, "no result has a power meter's numbers"))
    return cards


def _parity_card(bundles: Iterable[Values]) -> dict[str, Any]:
    """How many stages were held to PyTorch, and the one that is nearest to its gate."""
    stages = [stage for bundle in bundles for stage in (bundle["parity"] or {}).get("stages", ()) if stage["gate"]]
    if not stages:
        return _card("parity with PyTorch", None, "no bundle compares its graphs with PyTorch")
    found = [
        (output["sqnr_db"] - stage["gate"]["min_sqnr_db"], output["sqnr_db"], stage)
        for stage in stages
        for output in stage["report"]["outputs"]
        if output["sqnr_db"] is not None
    ]
    value = f"{len(stages)} of {len(stages)} gates passed"  # what misses one is no bundle
    if not found:
        return _card("parity with PyTorch", value, "all of them exactly")
    _, decibels, stage = min(found, key=lambda one: one[0])
    asked = stage["gate"]["min_sqnr_db"]
    return _card("parity with PyTorch", value, f"nearest to its gate: {stage['stage']}, {decibels:.1f} of {asked:g} dB")


def _card(what: str, value: str | None, detail: str) -> dict[str, Any]:
    return {"what": what, "value": value, "detail": detail}
