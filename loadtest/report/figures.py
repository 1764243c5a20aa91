"""Every number of a run in one dictionary, from what k6, the audit and Prometheus left."""

import collections
import json
import re

ANSWERS = {
    "ACCEPTED": "accepted",
    "ALREADY_ISSUED": "already_issued",
    "SOLD_OUT": "sold_out",
    "other refusals": "refused",
    "503 UNAVAILABLE": "unavailable",
    "429 TOO_MANY_REQUESTS": "too_many_requests",
    "transport errors": "transport",
}


def figures_of(folder, run, prometheus):
    k6 = json.loads((folder / "k6.json").read_text())
    machine = json.loads((folder / "machine.json").read_text())
    audit = audit_of(folder, run, coupons_of(folder, run))
    answers = {word: k6[f"answers_{name}"] for word, name in ANSWERS.items()}
    seconds = k6["since_t0_max_ms"] / 1000
    last_issued = audit.pop("last_issued_at_ms")
    return {
        "scenario": run.scenario,
        "stack": run.stack,
        **({"apis": run.apis, "consumers": run.consumers} if run.stack == "distributed" else {}),
        **machine,
        "servers": servers_of(folder),
        "t0_ms": k6["t0_ms"],
        "marks_ms": k6["marks_ms"],
        "stock": k6["stock"],
        "answers": answers,
        "refusals": refusals_of(folder),
        "users": {
            "asked": k6["users"],
            "expected_winners": k6["expected_winners"],
            **{end: k6[f"users_{end}"] for end in ("won", "sold_out", "refused", "unanswered")},
        },
        "contradictions": k6["contradictions"],
        "answer_ms": times_of(k6, "answer"),
        "since_t0_ms": times_of(k6, "since_t0"),
        "requests_per_second": round(sum(answers.values()) / seconds, 1) if seconds else None,
        "last_answer_ms": k6["since_t0_max_ms"],
        "ceiling": ceiling_of(folder),
        # Where all was issued before T0 there is nothing to tell.
        "last_issued_ms": last_issued - k6["t0_ms"] if last_issued and last_issued >= k6["t0_ms"] else None,
        "not_waiting_at_t0": not_waiting(k6),
        "dropped": k6["dropped_iterations"],
        "audit": audit,
        "processes": processes_of(run, prometheus),
    }


def ceiling_of(folder):
    """The same crowd at a constant answer, where it was let go at one."""
    file = folder / "ceiling.json"
    if not file.exists():
        return None
    k6 = json.loads(file.read_text())
    return {
        "last_answer_ms": k6["since_t0_max_ms"],
        "since_t0_ms": times_of(k6, "since_t0"),
        "not_waiting_at_t0": not_waiting(k6),
    }


def not_waiting(k6):
    """Users whose connection did not stand at T0, by what became of it."""
    return {name: k6[name] for name in ("late", "unconnected", "reconnected")}


def times_of(k6, name):
    return {stat: k6[f"{name}_{stat}_ms"] for stat in ("p50", "p95", "p99", "max")}


def coupons_of(folder, run):
    """The audit's coupons that are of this run: their ids differ in the last four digits only."""
    try:
        report = json.loads((folder / "audit.json").read_text())
    except ValueError:
        return {"clean": False, "violations": None, "coupons": []}
    prefix = run.coupon[:-4]
    report["coupons"] = [coupon for coupon in report["coupons"] if coupon["coupon_id"].startswith(prefix)]
    return report


def audit_of(folder, run, report):
    coupons = report["coupons"]
    return {
        "status": run.audit_status,
        "clean": report["clean"],
        "violations": report["violations"],
        "coupons": len(coupons),
        "issued": sum(coupon["issued"] for coupon in coupons),
        "unwritten": sum(coupon["unwritten"] for coupon in coupons),
        "dead_letters": sum(coupon["dead_letters"] for coupon in coupons),
        "last_issued_at_ms": max((coupon["last_issued_at_ms"] or 0 for coupon in coupons), default=0),
    }


def refusals_of(folder):
    """What was said instead of the three usual words, and how often."""
    words = collections.Counter()
    file = folder / "k6-outcomes.txt"
    if file.exists():
        with file.open() as lines:
            words.update(match.group(1) for match in map(re.compile(r"^OUTCOME (.*)$").match, lines) if match)
    return dict(words.most_common(10))


def servers_of(folder):
    """Name and version of each server of the stack, from the columns of `stack.sh status`."""
    file = folder / "stack-status.txt"
    if not file.exists():
        return {}
    lines = file.read_text().splitlines()
    column = lines[0].index("VERSION")
    return {line.split()[0]: line[column:].strip() for line in lines[1:] if line[column:].strip()}


def processes_of(run, prometheus):
    seconds = max(1, int(run.end - run.start))
    times = [run.start + second for second in range(seconds + 2)]
    memory = {labels["process"]: max(series.values()) for labels, series in prometheus.over_time("loadtest_resident_bytes", times)}
    found = []
    for labels, series in prometheus.over_time("loadtest_cpu_seconds_total", times):
        name = labels["process"]
        # k6 began with the run; all others have a life before it.
        before = 0.0 if name == "k6" else series[min(series)]
        found.append({"process": name, "cpu_seconds": round(max(series.values()) - before, 2), "peak_mib": round(memory[name] / 2**20)})
    return sorted(found, key=lambda process: process["process"])
