"""What the processes of a stage say of themselves, a line of JSON every second. The parts are those of its plan.

usage: sampler.py STATE FILE     (until it is asked to end)

Counters begin anew in a process that was started again; whoever reads the lines has to mind that.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

HERTZ = os.sysconf("SC_CLK_TCK")
# An answer of the service that settles what was asked.
FINAL = ("ACCEPTED", "ALREADY_ISSUED", "SOLD_OUT")
TIMEOUT_SECONDS = 0.8


def figures(page: str) -> dict[str, float]:
    """The few sums that a row is made of, from a page of metrics."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        if not line.startswith(("coupon_issue_total", "coupon_ledger_rows_total", "coupon_consumer_lag", "coupon_dead_letters")):
            continue
        name, _, value = line.rpartition(" ")
        if name.startswith("coupon_issue_total"):
            key = "answers" if any(f'"{word}"' in name for word in FINAL) else "not_final"
        elif name.startswith("coupon_dead_letters"):
            if '"open"' not in name:
                continue
            key = "dead_letters"
        else:
            key = "rows" if name.startswith("coupon_ledger_rows_total") else "lag"
        sums[key] = sums.get(key, 0.0) + float(value)
    return sums


def ask(address: str) -> dict[str, float]:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_SECONDS) as answer:
            return figures(answer.read().decode())
    except (OSError, ValueError):
        return {}


def cpu_seconds(pid_file: Path) -> float | None:
    try:
        fields = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return (int(fields[11]) + int(fields[12])) / HERTZ


def main(state: Path, file: Path) -> None:
    lines = [line.split() for line in (state / "plan" / "parts").read_text().splitlines()]
    parts = {name: host for name, _kind, host, *_ in lines}
    service = {name: f"{address}:{ops}" for name, kind, _host, address, _port, ops, *_ in lines if kind in ("api", "consumer")}
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ending.append(number))
    with file.open("w") as out, concurrent.futures.ThreadPoolExecutor(len(service)) as pool:
        while not ending:
            at = time.time()
            asked = {name: pool.submit(ask, address) for name, address in service.items()}
            cpu = {name: cpu_seconds(state / "run" / f"{name}.pid") for name in [*parts, "k6"]}
            found = {name: answer.result() for name, answer in asked.items()}
            out.write(json.dumps({"at": round(at, 3), "processes": found, "cpu": cpu}) + "\n")
            out.flush()
            time.sleep(max(0.0, 1.0 - (time.time() - at)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
