"""What scripts/dashboards-check.sh starts, as the stages have it, on loopback ports.

usage: parts.py FOLDER BASE-PORT REDIS-PORT KAFKA-PORT MYSQL-PORT

The settings are those of scripts/topology, so what is checked is what is shipped. FOLDER/PART/ has the arguments and the environment of a
part, with a NUL behind each, and its files. Prints a line for each part: name, kind, port, ops port.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "topology"))

from model import Host, Part, Topology  # noqa: E402
from settings import settings  # noqa: E402

# Distance from the base port; an ops port is ten above.
OURS = {"nginx": 0, "api": 1, "consumer": 2, "prometheus": 3, "redis-exporter": 4, "kafka-exporter": 5, "mysqld-exporter": 6, "nginx-exporter": 7, "node-exporter": 8}
WITH_OPS_PORT = ("nginx", "api", "consumer")
# Slower in production, where nobody waits for the first samples.
SLOW = "scrape_interval: 5s, scrape_timeout: 3s, evaluation_interval: 5s"
QUICK = "scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s"


class Loopback:
    """All on this machine, nothing to be reached from outside of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def address(self, _part: Part) -> str:
        return "127.0.0.1"

    def data(self, part: Part) -> str:
        return str(self.folder / part.name / "data")

    def file(self, part: Part, name: str) -> str:
        return str(self.folder / part.name / name)

    def mount(self, _part: Part, name: str) -> str:
        return str(ROOT / name)

    def root(self) -> str:
        return "/"


def on_loopback(text: str) -> str:
    """Parts of a stage listen on every address of their host."""
    text = re.sub(r"\b0\.0\.0\.0:", "127.0.0.1:", text)
    text = re.sub(r"(listen-address=):(\d+)$", r"\g<1>127.0.0.1:\2", text)
    return re.sub(r"\blisten (\d+)\b", r"listen 127.0.0.1:\1", text)


def topology(base: int, servers: dict[str, int]) -> Topology:
    ports = servers | {kind: base + above for kind, above in OURS.items()}
    parts = tuple(
        Part(kind, kind, "here", 1, 1, "", 1, port, port + 10 if kind in WITH_OPS_PORT else 0) for kind, port in ports.items()
    )
    return Topology("check", (Host("here", 1, 1, parts),), 6, 1, 1, {})


def main() -> None:
    folder, base, redis, kafka, mysql = Path(sys.argv[1]), *map(int, sys.argv[2:])
    servers = {"redis": redis, "kafka": kafka, "mysql": mysql}
    described = topology(base, servers)
    place = Loopback(folder)
    for part in described.parts:
        if part.kind in servers:
            continue
        made = settings(described, part, place)
        Path(place.data(part)).mkdir(parents=True, exist_ok=True)
        (folder / part.name / "arguments").write_text("".join(f"{on_loopback(word)}\0" for word in made.arguments))
        (folder / part.name / "environment").write_text("".join(f"{key}={on_loopback(value)}\0" for key, value in made.environment.items()))
        for name, text in made.files.items():
            if part.kind == "prometheus":
                assert SLOW in text, "the scrape interval of the stages changed"
                text = text.replace(SLOW, QUICK)
            (folder / part.name / name).write_text(on_loopback(text))
        print(part.name, part.kind, part.port, part.ops_port)


main()
