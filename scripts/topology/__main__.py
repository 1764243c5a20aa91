"""From the descriptions in docker/topologies/ to compose files and plans.

    python3 scripts/topology compose          write docker/compose/NAME.yaml for every topology
    python3 scripts/topology check            exit 1 unless they are all up to date
    python3 scripts/topology show NAME        print which processes run where, with which limits
    python3 scripts/topology plan NAME STATE  write the same for scripts/stage.sh into the folder STATE
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import compose
import model
import native


def check() -> int:
    status = 0
    wanted = {f"{name}.yaml": compose.compose(model.load(name)) for name in model.names()}
    for name, text in wanted.items():
        path = compose.FOLDER / name
        if not path.is_file() or path.read_text() != text:
            print(f"docker/compose/{name} is not what its description says: run `make topologies`", file=sys.stderr)
            status = 1
    for path in compose.FOLDER.glob("*.yaml"):
        if path.name not in wanted:
            print(f"docker/compose/{path.name} has no description in docker/topologies/", file=sys.stderr)
            status = 1
    return status


def main() -> int:
    parser = argparse.ArgumentParser(prog="topology", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("compose")
    commands.add_parser("check")
    for command in ("show", "plan"):
        sub = commands.add_parser(command)
        sub.add_argument("name")
        sub.add_argument("--cores", type=int, default=os.cpu_count() or 1)
        sub.add_argument("--crowd", type=float, default=native.Machine.crowd, help="share of the cores for the crowd's host while all are busy")
        sub.add_argument("--fixed", action="store_true", help="no host has more than its share, even while others are idle")
        sub.add_argument("--apis", type=int, help="so many API hosts instead of the described ones")
        sub.add_argument("--consumers", type=int, help="so many consumer hosts instead of the described ones")
        sub.add_argument("--no-monitoring", action="store_true")
        if command == "plan":
            sub.add_argument("state", type=Path)
    given = parser.parse_args()
    try:
        if given.command == "compose":
            compose.FOLDER.mkdir(exist_ok=True)
            for name in model.names():
                (compose.FOLDER / f"{name}.yaml").write_text(compose.compose(model.load(name)))
        elif given.command == "check":
            return check()
        else:
            counts = {kind: count for kind, count in (("api", given.apis), ("consumer", given.consumers)) if count is not None}
            topology = model.load(given.name, counts).without(*model.CONTAINERS_ONLY)
            machine = native.Machine(given.cores, given.crowd, given.fixed)
            if given.no_monitoring:
                topology = topology.without(*model.MONITORING)
            if given.command == "show":
                print(native.show(topology, machine), end="")
            else:
                native.write(topology, machine, given.state.resolve())
    except model.BadTopology as error:
        print(f"topology: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
