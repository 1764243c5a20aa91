"""A row of our figures beside the original system's, of one or more runs against a stage.

usage: row.py FILE FOLDER...     FILE gets the row as JSON; of several runs the last one's, with all of them under `runs`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# The figures the original published, by stage and users. What it did not publish is None.
FIGURES = ("p95_ms", "api_tps_avg", "api_tps_max", "consumer_tps_avg", "consumer_tps_max", "lag_end", "success_rate")
ORIGINAL: dict[str, dict[int, tuple[str, tuple[float | None, ...]]]] = {
    "single": {500: ("1", (2950, 270, 400, 100, 120, None, None)), 5000: ("1", (6750, 550, 900, 80, 95, None, None))},
    "split": {7000: ("2-1", (5550, 1200, 1450, 700, 810, None, None))},
    "split-db": {7000: ("2-2", (2490, None, 2500, None, 1250, None, None))},
    "scaled": {10000: ("2-3", (None, None, 2500, None, 2500, 1000, None))},
    "ha-two-brokers": {7000: ("3", (5970, 1550, 1830, 1550, 1820, None, 1.0))},
    # It had no such stage: beside it stands its stage 3, the one with more than one broker.
    "ha": {7000: ("3", (5970, 1550, 1830, 1550, 1820, None, 1.0))},
}
# What it wanted, for the stage whose times it did not publish.
WANTED_MS = 3000
# A rate is one over this many seconds at least: shorter ones are higher.
RATE_SECONDS = 10.0
OUTCOMES = ("accepted", "already_issued", "sold_out", "refused", "unavailable", "too_many_requests", "transport")


def original_of(stage: str, users: int) -> tuple[str, dict[str, float | None]]:
    """Of as many users, else of the most it had there."""
    of_stage = ORIGINAL[stage]
    name, figures = of_stage.get(users) or of_stage[max(of_stage)]
    return name, dict(zip(FIGURES, figures))


def totals(samples: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """What all processes together counted since the first sample; a process that was started again begins at 0."""
    last: dict[str, float] = {}
    total, found = 0.0, []
    for index, sample in enumerate(samples):
        for process, figures in sample["processes"].items():
            if key not in figures:
                continue
            value = figures[key]
            before = last.get(process, value if index == 0 else 0.0)
            total += value - before if value >= before else value
            last[process] = value
        found.append((sample["at"], total))
    return found


def at(series: list[tuple[float, float]], time: float) -> float:
    """The total at a moment between two samples."""
    before = series[0]
    for point in series:
        if point[0] >= time:
            span = point[0] - before[0]
            return before[1] + (point[1] - before[1]) * ((time - before[0]) / span if span else 1.0)
        before = point
    return before[1]


def average(series: list[tuple[float, float]], begin: float, end: float) -> float:
    return (at(series, end) - at(series, begin)) / (end - begin)


def highest(series: list[tuple[float, float]], begin: float, end: float) -> float:
    """The highest average over RATE_SECONDS."""
    starts = [time for time, _ in series if begin <= time <= end - RATE_SECONDS]
    return max((average(series, time, time + RATE_SECONDS) for time in starts), default=0.0)


def lag_at(samples: list[dict[str, Any]], time: float) -> int:
    """What was not yet written, in the first sample from a moment on."""
    sample = next((sample for sample in samples if sample["at"] >= time), samples[-1])
    return int(sum(figures.get("lag", 0.0) for figures in sample["processes"].values()))


def cpu_of(samples: list[dict[str, Any]], begin: float, end: float) -> dict[str, float]:
    """Cores that each part used on average."""
    wanted = [sample for sample in samples if begin <= sample["at"] <= end]
    used: dict[str, float] = {}
    last: dict[str, float] = {}
    for sample in wanted:
        for part, seconds in sample["cpu"].items():
            if seconds is None:
                last.pop(part, None)
                continue
            before = last.get(part, seconds)
            used[part] = used.get(part, 0.0) + (seconds - before if seconds >= before else seconds)
            last[part] = seconds
    span = max(1.0, wanted[-1]["at"] - wanted[0]["at"]) if wanted else 1.0
    return {part: round(seconds / span, 3) for part, seconds in used.items()}


def beats(ours: dict[str, float], original: dict[str, float | None]) -> dict[str, bool]:
    """Better than what was published. An average of which only the highest rate was published must be above that one."""
    found = {"p95_ms": ours["p95_ms"] < (WANTED_MS if original["p95_ms"] is None else original["p95_ms"])}
    for role in ("api", "consumer"):
        most = original[f"{role}_tps_max"]
        mean = original[f"{role}_tps_avg"]
        found[f"{role}_tps_avg"] = ours[f"{role}_tps_avg"] > (most if mean is None else mean)
        found[f"{role}_tps_max"] = ours[f"{role}_tps_max"] > most
    # No figure can be better than these two.
    found["lag_end"] = ours["lag_end"] == 0
    found["success_rate"] = ours["success_rate"] == 1.0
    return found


def run_of(folder: Path) -> dict[str, Any]:
    k6 = json.loads((folder / "k6.json").read_text())
    note = json.loads((folder / "run.json").read_text())
    audit = json.loads((folder / "audit.json").read_text() or "{}")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    events_file = folder / "events.jsonl"
    events = [json.loads(line) for line in events_file.read_text().splitlines()] if events_file.exists() else []
    return figures_of(k6, note, audit, samples, events)


def figures_of(
    k6: dict[str, Any], note: dict[str, Any], audit: dict[str, Any], samples: list[dict[str, Any]], events: list[dict[str, Any]]
) -> dict[str, Any]:
    begin = k6["t0_ms"] / 1000
    all_there, all_gone = (begin + milliseconds / 1000 for milliseconds in k6["all_there_ms"])
    answers, rows = totals(samples, "answers"), totals(samples, "rows")
    steady, *slots = k6["windows"]
    original_stage, original = original_of(note["stage"], note["users_at_a_time"])
    ours = {
        "p95_ms": steady["p95_ms"],
        "api_tps_avg": round(average(answers, all_there, all_gone), 1),
        "api_tps_max": round(highest(answers, begin, all_gone), 1),
        "consumer_tps_avg": round(average(rows, all_there, all_gone), 1),
        "consumer_tps_max": round(highest(rows, begin, note["end_of_crowd"]), 1),
        "lag_end": lag_at(samples, note["end_of_crowd"]),
        "success_rate": round((k6["users_won"] + k6["users_sold_out"]) / max(1, k6["users"]), 6),
    }
    # Of this run: the ids of its coupons differ in the last four digits only.
    coupons = [coupon for coupon in audit.get("coupons", []) if coupon["coupon_id"].startswith(note["coupon_id"][:-4])]
    return {
        **ours,
        "beats": beats(ours, original),
        "original": {"stage": original_stage, **original},
        **note,
        "requests": sum(k6[f"answers_{outcome}"] for outcome in OUTCOMES),
        "outcomes": {outcome: k6[f"answers_{outcome}"] for outcome in OUTCOMES},
        "users": {"asked": k6["users"], **{end: k6[f"users_{end}"] for end in ("won", "sold_out", "refused", "unanswered")}},
        "contradictions": k6["contradictions"],
        "steady_seconds": round(all_gone - all_there),
        "steady_ms": {stat: steady[f"{stat}_ms"] for stat in ("p50", "p95", "p99", "max")},
        "whole_run_ms": {stat: k6[f"answer_{stat}_ms"] for stat in ("p50", "p95", "p99", "max")},
        "lag_when_the_crowd_ends": lag_at(samples, all_gone),
        "lag_max": max(lag_at([sample], 0) for sample in samples),
        "cores_used": cpu_of(samples, all_there, all_gone),
        "audit": {
            "clean": note["audit_status"] == 0 and audit.get("clean", False),
            "violations": audit.get("violations"),
            "issued": sum(coupon["issued"] for coupon in coupons),
            "unwritten": sum(coupon["unwritten"] for coupon in coupons),
            "dead_letters": sum(coupon["dead_letters"] for coupon in coupons),
        },
        "events": events,
        "slots": slots,
    }


def failures(run: dict[str, Any]) -> list[str]:
    """What must never be, whatever happened meanwhile."""
    found = []
    audit = run["audit"]
    if not audit["clean"]:
        found.append("the audit is not clean")
    if audit["unwritten"] or audit["dead_letters"]:
        found.append(f"{audit['unwritten']} are not written, {audit['dead_letters']} are dead letters")
    # Everybody who was told yes has a row. Who was told nothing in the end may have one as well: nobody told that user no.
    if not run["users"]["won"] <= audit["issued"] <= run["users"]["won"] + run["users"]["unanswered"]:
        found.append(f"{run['users']['won']} users were told yes, and {audit['issued']} rows are there")
    if run["contradictions"]:
        found.append(f"{run['contradictions']} answers cannot be")
    if run["users"]["refused"]:
        found.append(f"{run['users']['refused']} users were refused without a reason")
    return found + [f"{event['event']} failed" for event in run["events"] if event["result"] != "done"]


def text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"


def pair(figures: dict[str, Any], role: str) -> str:
    return f"{text(figures[f'{role}_tps_avg'])} / {text(figures[f'{role}_tps_max'])}"


def row(run: dict[str, Any]) -> str:
    """For people."""
    original, won = run["original"], run["beats"]
    yes = {name: "yes" if value else "NO" for name, value in won.items()}
    lines = [
        ("", "p95 ms", "API TPS avg/max", "consumer TPS avg/max", "lag at the end", "success"),
        (f"original, stage {original['stage']}", text(original["p95_ms"]), pair(original, "api"), pair(original, "consumer"), text(original["lag_end"]), text(original["success_rate"])),
        (f"ours, {run['stage']}, {run['users_at_a_time']:,} users", text(run["p95_ms"]), pair(run, "api"), pair(run, "consumer"), text(run["lag_end"]), f"{run['success_rate']:.6g}"),
        ("better", yes["p95_ms"], *(f"{yes[f'{role}_tps_avg']} / {yes[f'{role}_tps_max']}" for role in ("api", "consumer")), yes["lag_end"], yes["success_rate"]),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    made = ["  ".join(word.ljust(width) if index == 0 else word.rjust(width) for index, (word, width) in enumerate(zip(line, widths))) for line in lines]
    cores = run["cores_used"]
    made += [
        "",
        f"answers: {', '.join(f'{count:,} {word}' for word, count in run['outcomes'].items() if count)}; users: {run['users']['asked']:,}, "
        f"{run['users']['unanswered']:,} of them without a final answer in time",
        f"audit: {'clean' if run['audit']['clean'] else 'NOT CLEAN'}, {run['audit']['issued']:,} issued, {run['audit']['unwritten']:,} unwritten, all written and "
        f"audited {run['drained_within_s']} s after the crowd; lag {run['lag_when_the_crowd_ends']:,} when the crowd ended, {run['lag_max']:,} at most",
        f"limit: {text(run['limiter_rate']) if run['limiter_rate'] else 'none'}; {run['coupons']} coupon(s); think time {run['think_seconds']:g} s; "
        f"{run['steady_seconds']} s with all users",
        f"handicap: all hosts share {run['machine']['processor']}; a host has {run['cpu_factor']:.3f} of its vCPUs while all are busy. "
        f"Cores used: k6 {cores.get('k6', 0):.2f}, all others {sum(used for part, used in cores.items() if part != 'k6'):.2f}",
    ]
    if run["slots"]:
        made += ["", *slots_of(run)]
    made += [f"FAILED: {failure}" for failure in failures(run)]
    return "\n".join(made)


def slots_of(run: dict[str, Any]) -> list[str]:
    """A line for each event: what users saw from it to the next one."""
    names = [event["event"] for event in run["events"]]
    # A part that is started again has no slot of its own.
    killed: set[str] = set()
    firsts = []
    for name in names:
        command, target = name.split()
        if command == "start" and target in killed:
            killed.discard(target)
            continue
        if command == "kill":
            killed.add(target)
        firsts.append(name)
    lines = ["| event | requests | honest answers | 503 | errors | p95 ms | max ms |", "|---|---|---|---|---|---|---|"]
    for name, slot in zip(firsts, run["slots"]):
        honest = slot["accepted"] + slot["already_issued"] + slot["sold_out"]
        errors = slot["transport"] + slot["refused"] + slot["too_many_requests"]
        total = honest + errors + slot["unavailable"]
        lines.append(f"| {name} | {total:,} | {honest:,} | {slot['unavailable']:,} | {errors:,} | {slot['p95_ms']:,} | {slot['max_ms']:,} |")
    return lines


def main(file: Path, folders: list[Path]) -> int:
    runs = [run_of(folder) for folder in folders]
    result = dict(runs[-1])
    if len(runs) > 1:
        # Better only where every run is.
        result["beats"] = {name: all(run["beats"][name] for run in runs) for name in FIGURES}
        result["runs"] = runs
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    for run in runs:
        print(f"\n{row(run)}")
    print(f"\nthe same in {file}")
    return 1 if any(failures(run) for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]))
