"""Whether every alert has what belongs to it: cases in the tests, a page in the runbook, a row in the table of docs/monitoring.md."""

from __future__ import annotations

import re
from pathlib import Path


def faults(root: Path) -> list[str]:
    alerts = alerts_of((root / "dashboards" / "alerts.yml").read_text())
    cases = [case for path in sorted((root / "dashboards" / "tests").glob("*.yml")) for case in cases_of(path.read_text())]
    runbook = (root / "docs" / "runbook.md").read_text()
    table = (root / "docs" / "monitoring.md").read_text()
    named = set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE))
    found = []
    for alert, body in alerts.items():
        if f"runbook: docs/runbook.md#{alert.lower()}\n" not in body:
            found.append(f"alert {alert} does not name its page, docs/runbook.md#{alert.lower()}")
        if alert not in named:
            found.append(f"docs/runbook.md has no page '### {alert}'")
        if f"| `{alert}` |" not in table:
            found.append(f"docs/monitoring.md has no row for {alert}")
        own = [case for case in cases if f'alertname="{alert}"' in case]
        if not own:
            found.append(f"no case in dashboards/tests/ lets {alert} fire")
        elif not any("exp_samples: []" in case for case in own):
            found.append(f"no case in dashboards/tests/ keeps {alert} silent")
    found += [f"docs/runbook.md has a page for {name}, which is no alert" for name in sorted(named - alerts.keys())]
    return found


def alerts_of(text: str) -> dict[str, str]:
    """Name and text of each alert."""
    parts = re.split(r"^      - alert: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cases_of(text: str) -> list[str]:
    return re.split(r"^  - name: ", text, flags=re.MULTILINE)[1:]
