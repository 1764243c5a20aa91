"""From the panels in dashboards/panels/ to Grafana's dashboards, and whether all that belongs together does.

    python3 scripts/dashboards make     write dashboards/grafana/NAME.json for every description
    python3 scripts/dashboards check    exit 1 unless they are up to date, and every alert has its tests, its page and its row of the table
"""

from __future__ import annotations

import argparse
import sys
import tomllib

import description
import grafana
import pages

MADE = description.FOLDER / "grafana"


def wanted() -> dict[str, str]:
    return {f"{dashboard.name}.json": grafana.text(dashboard) for dashboard in description.dashboards()}


def make() -> int:
    MADE.mkdir(exist_ok=True)
    for name, text in wanted().items():
        (MADE / name).write_text(text)
    return 0


def check() -> int:
    found = []
    texts = wanted()
    for name, text in texts.items():
        path = MADE / name
        if not path.is_file() or path.read_text() != text:
            found.append(f"dashboards/grafana/{name} is not what its description says: run `make dashboards`")
    found += [f"dashboards/grafana/{path.name} has no description in dashboards/panels/" for path in MADE.glob("*.json") if path.name not in texts]
    found += pages.faults(description.ROOT)
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="dashboards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["make", "check"])
    try:
        return make() if parser.parse_args().command == "make" else check()
    except (description.BadDescription, tomllib.TOMLDecodeError) as error:
        print(f"dashboards: {error}", file=sys.stderr)
        return 1


sys.exit(main())
