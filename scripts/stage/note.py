"""What a run against a stage must name so that it can be judged and repeated, as JSON.

usage: note.py FILE STATE AUDIT_STATUS END_OF_CROWD K6 SERVICE
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "loadtest" / "report"))
import machine  # noqa: E402


def limiter_rate(state: Path) -> float:
    """As the consumers have it: from the environment, else from the stage."""
    if "COUPON__LIMITER__RATE" in os.environ:
        return float(os.environ["COUPON__LIMITER__RATE"])
    for file in state.glob("consumer*/environment"):
        for setting in file.read_text().split("\0"):
            if setting.startswith("COUPON__LIMITER__RATE="):
                return float(setting.partition("=")[2])
    return 0.0


def main(file: str, state: Path, audit_status: str, end_of_crowd: str, k6: str, service: str) -> None:
    hosts = [line.split() for line in (state / "plan" / "hosts").read_text().splitlines()]
    made = machine.main(service, k6, "prometheus")
    note = {
        "stage": os.environ["STAGE"],
        "users_at_a_time": int(os.environ["USERS"]),
        "think_seconds": float(os.environ["THINK_SECONDS"]),
        "coupons": int(os.environ["COUPONS"]),
        "coupon_id": os.environ["COUPON_ID"],
        "limiter_rate": limiter_rate(state),
        "monitoring": os.environ["MONITORING"] != "0",
        "proxy": os.environ["PROXY_REPEATS"] == "1",
        "down_seconds": int(os.environ["EVENT_DOWN"]),
        "audit_status": int(audit_status),
        "end_of_crowd": float(end_of_crowd),
        "drained_within_s": round(time.time() - float(end_of_crowd), 1),
        "cpu_factor": float((state / "plan" / "factor").read_text()),
        "hosts": {name: {"vcpu": float(vcpu), "cores_while_all_are_busy": float(cores)} for name, _, vcpu, cores, *_ in hosts},
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": os.environ["COMMAND"],
        "machine": made["machine"],
        "versions": {name: version for name, version in made["versions"].items() if name != "Prometheus"},
    }
    Path(file).write_text(json.dumps(note, indent=2) + "\n")


if __name__ == "__main__":
    file, state, *rest = sys.argv[1:]
    main(file, Path(state), *rest)
