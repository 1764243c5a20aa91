"""Slows the database down and back, and writes what the consumers do meanwhile, twice a second, as CSV lines.

usage: watch.py MODE TOXIPROXY-URL FAST,SLOW,FAST FILE CONSUMER-OPS-ADDRESS...

The seconds of the three phases are from now on. Settings: SLOW_LATENCY_MS, SLOW_KB (see scripts/limiter-demo.sh), WORKERS of a consumer.
"""

import json
import os
import re
import sys
import time
import urllib.request

EVERY = 0.5
# Commits of this many seconds make one p95.
WINDOW = 2.0
SAMPLE = re.compile(r"^(coupon_\w+?)(?:\{(.*)\})? (\S+)$")
WORKERS = int(os.environ.get("WORKERS", "2"))
COLUMNS = ["limit", "second", "phase", "rate", "measured", "rows_per_second", "lag", "oldest_seconds", "commit_p95_seconds",
           "rows_per_commit_second", "open_share"]


def scrape(address):
    """Values by name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as page:
        found = (SAMPLE.match(line) for line in page.read().decode().splitlines())
        return {(match[1], match[2] or ""): float(match[3]) for match in found if match}


def total(pages, name):
    return sum(value for page in pages for (named, _), value in page.items() if named == name)


def buckets(pages):
    """Commits so far, by the upper bound of their seconds."""
    found = {}
    for page in pages:
        for (name, labels), value in page.items():
            if name == "coupon_ledger_commit_seconds_bucket":
                bound = float(re.search(r'le="([^"]+)"', labels)[1].replace("+Inf", "inf"))
                found[bound] = found.get(bound, 0) + value
    return found


def p95(before, after):
    counts = [(bound, after[bound] - before.get(bound, 0)) for bound in sorted(after)]
    if not counts or counts[-1][1] == 0:
        return None
    wanted, lower, below = counts[-1][1] * 0.95, 0.0, 0
    for bound, count in counts:
        if count >= wanted:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    return lower


def toxic(url, name, method, body=None):
    path = f"{url}/proxies/mysql/toxics" + ("" if method == "POST" else f"/{name}")
    data = json.dumps(body).encode() if body else None
    urllib.request.urlopen(urllib.request.Request(path, data=data, method=method), timeout=5).read()


def slow_down(url):
    latency, kb = int(os.environ["SLOW_LATENCY_MS"]), int(os.environ["SLOW_KB"])
    toxic(url, "far", "POST", {"name": "far", "type": "latency", "stream": "downstream", "attributes": {"latency": latency}})
    toxic(url, "narrow", "POST", {"name": "narrow", "type": "bandwidth", "stream": "upstream", "attributes": {"rate": kb}})


def cure(url):
    for name in ("far", "narrow"):
        toxic(url, name, "DELETE")


def text(value):
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:.0f}" \
        if isinstance(value, float) else str(value)


def main():
    mode, url, spans, file, *addresses = sys.argv[1:]
    fast, slow, again = (float(span) for span in spans.split(","))
    began = time.monotonic()
    history, phase = [], "full speed"
    fresh = not os.path.exists(file)
    with open(file, "a") as out:
        if fresh:
            print(",".join(COLUMNS), file=out)
        while (second := time.monotonic() - began) < fast + slow + again:
            if phase == "full speed" and second >= fast:
                slow_down(url)
                phase = "a tenth"
            elif phase == "a tenth" and second >= fast + slow:
                cure(url)
                phase = "full speed again"
            pages = [scrape(address) for address in addresses]
            history.append((time.monotonic(), pages))
            while len(history) > 2 and history[1][0] <= history[-1][0] - WINDOW:
                history.pop(0)
            (then, before), (now, after) = history[0], history[-1]
            if now > then:
                rows = total(after, "coupon_ledger_rows_total") - total(before, "coupon_ledger_rows_total")
                seconds = total(after, "coupon_ledger_commit_seconds_sum") - total(before, "coupon_ledger_commit_seconds_sum")
                values = {
                    "limit": mode, "second": round(second, 1), "phase": phase,
                    "rate": max(page.get(("coupon_limiter_rate", ""), 0.0) for page in after),
                    "measured": max(page.get(("coupon_limiter_measured", ""), 0.0) for page in after),
                    "rows_per_second": rows / (now - then), "lag": total(after, "coupon_consumer_lag"),
                    "oldest_seconds": max(page.get(("coupon_consumer_oldest_seconds", ""), 0.0) for page in after),
                    "commit_p95_seconds": p95(buckets(before), buckets(after)),
                    "rows_per_commit_second": rows / seconds if seconds else None,
                    "open_share": seconds / (now - then) / WORKERS / len(addresses),
                }
                print(",".join(text(values[column]) for column in COLUMNS), file=out, flush=True)
            time.sleep(max(0.0, EVERY - (time.monotonic() - began - second)))


main()
