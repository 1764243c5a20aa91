"""The dashboards as dashboards/panels/ describes them, checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dashboards"
KINDS = ("number", "graph", "stack")
# Grafana's names; one that it does not know would be shown as a bare number.
UNITS = ("Bps", "bool_yes_no", "bytes", "cps", "dtdurations", "none", "ops", "percentunit", "reqps", "s", "short")


class BadDescription(Exception):
    """What is wrong with a description."""


@dataclass(frozen=True)
class Panel:
    title: str
    # The title of the row that begins here, or nothing.
    row: str
    kind: str
    unit: str
    # From which value on it is yellow and red, and below which red; None where there is no such value.
    warn: float | None
    bad: float | None
    bad_below: float | None
    # Legend and query.
    queries: tuple[tuple[str, str], ...]
    good: str
    do: str


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    # Name and query of what the reader chooses; empty where there is nothing to choose.
    variable: dict[str, str]
    panels: tuple[Panel, ...]


def dashboards() -> list[Dashboard]:
    return [read(path.stem, tomllib.loads(path.read_text())) for path in sorted((FOLDER / "panels").glob("*.toml"))]


def read(name: str, described: dict[str, Any]) -> Dashboard:
    unknown = described.keys() - {"title", "variable", "panel"}
    if unknown:
        raise BadDescription(f"{name}: unknown keys: {', '.join(sorted(unknown))}")
    panels = tuple(panel(f"{name}: {title}", title, keys) for title, keys in described["panel"].items())
    if not panels[0].row:
        raise BadDescription(f"{name}: the first panel begins no row")
    return Dashboard(name, described["title"], described.get("variable", {}), panels)


def panel(where: str, title: str, keys: dict[str, Any]) -> Panel:
    missing = {"show", "ask", "good", "do"} - keys.keys()
    unknown = keys.keys() - {"row", "show", "ask", "good", "do"}
    if missing or unknown:
        raise BadDescription(f"{where}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    kind, unit, *limits = keys["show"].split()
    values = dict(zip(limits[::2], limits[1::2], strict=True))
    if kind not in KINDS or unit not in UNITS or values.keys() - {"warn", "bad", "bad-below"}:
        raise BadDescription(f"{where}: show = '{keys['show']}' is not understood")
    queries = tuple(zip(keys["ask"][::2], keys["ask"][1::2], strict=True))
    if not queries or not all(query for _, query in queries) or not keys["good"] or not keys["do"]:
        raise BadDescription(f"{where}: a query, `good` or `do` is empty")
    if kind == "number" and len(queries) != 1:
        raise BadDescription(f"{where}: a number has one query")
    if kind != "number" and not all(legend for legend, _ in queries):
        raise BadDescription(f"{where}: a line without a legend")

    def limit(word: str) -> float | None:
        return float(values[word]) if word in values else None

    return Panel(
        title, keys.get("row", ""), kind, unit, limit("warn"), limit("bad"), limit("bad-below"), queries, keys["good"], keys["do"]
    )
