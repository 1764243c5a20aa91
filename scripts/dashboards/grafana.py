"""A dashboard as Grafana reads it."""

from __future__ import annotations

import json
from typing import Any

from description import Dashboard, Panel

# Grafana's grid is 24 wide: six numbers or three graphs beside each other.
WIDTH = 24
SIZES = {"number": (4, 4), "graph": (8, 8), "stack": (8, 8)}
SOURCE = {"type": "prometheus", "uid": "${source}"}


def text(dashboard: Dashboard) -> str:
    return json.dumps(document(dashboard), indent=2, ensure_ascii=False) + "\n"


def document(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"coupon-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["coupon-svc"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "schemaVersion": 39,
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "15s", "1m"]},
        "timezone": "browser",
        "links": [
            {"title": "Coupon", "type": "dashboards", "tags": ["coupon-svc"], "asDropdown": True, "includeVars": False, "keepTime": True}
        ],
        "annotations": {"list": [firing()]},
        "templating": {"list": variables(dashboard)},
        "panels": laid_out(dashboard),
    }


def firing() -> dict[str, Any]:
    """Alerts that fire, as marks in every graph."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
        "step": "15s",
        "titleFormat": "{{alertname}}",
    }


def variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
    if dashboard.variable:
        chosen = dashboard.variable
        found.append(
            {
                "name": chosen["name"],
                "label": chosen["name"].capitalize(),
                "type": "query",
                "datasource": SOURCE,
                "query": {"query": chosen["query"], "refId": "variable"},
                "definition": chosen["query"],
                # Asked anew when the time changes: the coupons of then, not those of now.
                "refresh": 2,
                "sort": 1,
                "includeAll": False,
                "multi": False,
            }
        )
    return found


def laid_out(dashboard: Dashboard) -> list[dict[str, Any]]:
    """Panels from left to right. One that does not fit, or is of another height, begins a new line."""
    panels: list[dict[str, Any]] = []
    x = y = line = 0
    for panel in dashboard.panels:
        width, height = SIZES[panel.kind]
        if panel.row or x + width > WIDTH or (x > 0 and height != line):
            x, y, line = 0, y + line, 0
        if panel.row:
            panels.append({"type": "row", "id": len(panels) + 1, "title": panel.row, "collapsed": False, "panels": [], "gridPos": grid(0, y, WIDTH, 1)})
            y += 1
        panels.append(shown(panel, len(panels) + 1) | {"gridPos": grid(x, y, width, height)})
        x, line = x + width, height
    return panels


def grid(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def shown(panel: Panel, number: int) -> dict[str, Any]:
    is_number = panel.kind == "number"
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto", "instant": is_number, "range": not is_number}
        for index, (legend, query) in enumerate(panel.queries)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps(panel)}}
    # What cannot be below zero begins there, so that small changes do not look large.
    defaults["min"] = 0
    if panel.unit == "percentunit":
        defaults["max"] = 1
    if is_number:
        defaults["color"] = {"mode": "thresholds"}
        options: dict[str, Any] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "value",
        }
    else:
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = drawn(panel)
        options = {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": "stat" if is_number else "timeseries",
        "title": panel.title,
        "description": f"**Good:** {panel.good}\n\n**If not:** {panel.do}",
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def drawn(panel: Panel) -> dict[str, Any]:
    stacked = panel.kind == "stack"
    has_limit = any(value is not None for value in (panel.warn, panel.bad, panel.bad_below))
    return {
        "lineWidth": 1,
        "fillOpacity": 40 if stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if has_limit else "off"},
    }


def steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.bad_below is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.bad_below}]
    marks: list[dict[str, Any]] = [{"color": "green", "value": None}]
    for color, value in (("yellow", panel.warn), ("red", panel.bad)):
        if value is not None:
            marks.append({"color": color, "value": value})
    return marks
