"""Stands in for what is not to be had natively: the Kafka exporter as a page, and a run of k6 by remote write.

usage: recorded.py PORT PROMETHEUS-URL

The series are in recorded/*.prom, by the names and labels of the real ones. Counters grow with every second.
"""

from __future__ import annotations

import http.server
import re
import sys
import threading
import time
from pathlib import Path

import remote_write

FOLDER = Path(__file__).with_name("recorded")
LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def page(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def series(name: str) -> list[tuple[dict[str, str], str]]:
    """Labels and value as written: a number, `+N` for a counter that grows by N a second, `~N` for N observations a second."""
    found = []
    for line in page(name).decode().splitlines():
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found.append(({"__name__": match[1]} | dict(LABEL.findall(match[2] or "")), match[3]))
    return found


def push(url: str) -> None:
    told = series("k6.prom")
    started = time.time()
    while True:
        now = time.time()
        samples = []
        for labels, value in told:
            grows = value[0] in "+~"
            amount = float(value[1:]) * (1 + int(now - started)) if grows else float(value)
            samples.append((labels, amount, value[0] == "~"))
        remote_write.send(url, samples, int(now * 1000))
        time.sleep(1)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = page("kafka-exporter.prom")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    push(sys.argv[2])
