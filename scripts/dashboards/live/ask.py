"""Asks a Prometheus that watches a load every query of the dashboards, and for every rule and alert whether it can be told.

usage: ask.py PROMETHEUS-URL SECONDS

A query must return a number. A recording rule must have a series. An alert may well be silent, so every series it selects must be there;
the same for the queries, where `or vector(0)` would hide a name that does not exist. What is not there yet is asked again for SECONDS. Exit
code 1 when something is missing in the end.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "dashboards"))

import description  # noqa: E402

# Told only once the trouble is there, which no load makes. Their names are compared with the source instead.
IN_TROUBLE = ("coupon_reader_stopped",)
# What Grafana puts in itself.
RATE_INTERVAL = "10s"
CLAUSE = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
SELECTOR = re.compile(r'(?<![\w:.$"])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\(|[\w:(])')
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
# A query, in words, and what asks it: nothing, or what is wrong.
Question = tuple[str, Callable[[], str]]


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            return {"error": json.load(refused).get("error", str(refused))}

    def fault(self, query: str) -> str:
        """Nothing when the query returns at least one number."""
        found = self.get("query", query=query)
        if "error" in found:
            return found["error"]
        values = [float(one["value"][1]) for one in found["result"] if "value" in one]
        if not found["result"]:
            return "nothing"
        # A native histogram is no single number.
        return "no number" if values and all(math.isnan(value) for value in values) else ""


def selectors(query: str) -> list[str]:
    """The series that a query selects: names with their braces."""
    without_strings = re.sub(r'(\{[^}]*\})|"[^"]*"', lambda match: match[1] or "", query)
    without_ranges = re.sub(r"\[[^\]]*\]", "", CLAUSE.sub(" ", without_strings))
    return [name + (braces or "") for name, braces in SELECTOR.findall(without_ranges) if name.lower() not in WORDS]


def there(prometheus: Prometheus, selector: str) -> str:
    name = selector.split("{")[0]
    if name in IN_TROUBLE:
        source = (ROOT / "src" / "telemetry" / "metrics.rs").read_text()
        return "" if f'"{name}"' in source else f"{name} is no metric of src/telemetry/metrics.rs"
    fault = prometheus.fault(f"count(last_over_time({selector}[5m]))")
    return f"no series {selector}" if fault == "nothing" else fault


def missing(prometheus: Prometheus, query: str) -> str:
    found = (there(prometheus, one) for one in dict.fromkeys(selectors(query)))
    return "; ".join(fault for fault in found if fault)


def of_panels(prometheus: Prometheus) -> list[Question]:
    asked: list[Question] = []
    for dashboard in description.dashboards():
        variable = dashboard.variable
        for panel in dashboard.panels:
            for legend, query in panel.queries:
                where = f"panel {dashboard.name} / {panel.title}" + (f" / {legend}" if legend else "")

                def ask(query: str = query, variable: dict[str, str] = variable) -> str:
                    filled = query.replace("$__rate_interval", RATE_INTERVAL)
                    if variable and f"${variable['name']}" in filled:
                        chosen = choices(prometheus, variable["query"])
                        if not chosen:
                            return f"there is nothing to choose by {variable['query']}"
                        filled = filled.replace(f"${variable['name']}", chosen[0])
                    return missing(prometheus, filled) or (fault := prometheus.fault(filled)) and f"{fault}: {filled}"

                asked.append((where, ask))
    return asked


def choices(prometheus: Prometheus, query: str) -> list[str]:
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    assert match, query
    return [value for value in prometheus.get(f"label/{match[2]}/values", **{"match[]": match[1]}) if isinstance(value, str)]


def of_rules(prometheus: Prometheus) -> list[Question]:
    asked: list[Question] = []
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            name, query, is_alert = rule["name"], rule["query"], rule["type"] == "alerting"

            def ask(name: str = name, query: str = query, is_alert: bool = is_alert) -> str:
                if absent := missing(prometheus, query):
                    return absent
                found = prometheus.get("query", query=query)
                return found.get("error", "") if is_alert else prometheus.fault(name)

            asked.append((("alert " if is_alert else "rule ") + name, ask))
    return asked


def main() -> int:
    prometheus, deadline = Prometheus(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    open_questions = of_panels(prometheus) + of_rules(prometheus)
    total = len(open_questions)
    while True:
        faults = [(where, ask, ask()) for where, ask in open_questions]
        faults = [fault for fault in faults if fault[2]]
        if not faults or time.monotonic() > deadline:
            break
        open_questions = [(where, ask) for where, ask, _ in faults]
        time.sleep(1)
    for where, _, fault in faults:
        print(f"  {where}: {fault}")
    print(f"{total - len(faults)} of {total} queries, rules and alerts can be told")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
