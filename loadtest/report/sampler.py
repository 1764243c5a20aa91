"""CPU time and memory of processes, as a page for Prometheus.

usage: sampler.py PORT FOLDER

Every file of FOLDER is a process: its name, and its pid inside. Read anew for every request, so processes may come and go.
"""

import http.server
import os
import pathlib
import sys

HERTZ = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def sample(pid):
    """CPU seconds and resident bytes."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    # The second field is the name in brackets and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ, int(fields[21]) * PAGE


def page(folder):
    lines = ["# TYPE loadtest_cpu_seconds_total counter", "# TYPE loadtest_resident_bytes gauge"]
    for file in sorted(folder.iterdir()):
        try:
            cpu, resident = sample(int(file.read_text()))
        except (OSError, ValueError, IndexError):
            continue  # not there any more, or not yet
        if resident == 0:
            continue  # ended, not yet waited for
        lines.append(f'loadtest_cpu_seconds_total{{process="{file.name}"}} {cpu}')
        lines.append(f'loadtest_resident_bytes{{process="{file.name}"}} {resident}')
    return "\n".join(lines) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = page(self.server.folder).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.folder = pathlib.Path(sys.argv[2])
    server.serve_forever()
