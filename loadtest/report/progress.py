"""One line every two seconds about a crowd that is under way, until k6 ends.

usage: progress.py PROMETHEUS_URL PID_OF_K6
"""

import os
import sys
import time

from prom import Prometheus

OUTCOMES = {
    "ACCEPTED": "accepted",
    "ALREADY_ISSUED": "already_issued",
    "SOLD_OUT": "sold_out",
    "refused": "refused",
    "503": "unavailable",
    "429": "too_many_requests",
    "transport": "transport",
}


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def line(prometheus, before):
    counts = {labels["__name__"]: value for labels, value in prometheus.now('{__name__=~"k6_answers_.*_total"}')}
    counts = {word: int(counts.get(f"k6_answers_{name}_total", 0)) for word, name in OUTCOMES.items()}
    total = sum(counts.values())
    if not total:
        return "the crowd is connecting", 0
    shown = [f"{word} {count:,}" for word, count in counts.items() if count or word in ("ACCEPTED", "SOLD_OUT")]
    lag = sum(value for _, value in prometheus.now("sum(coupon_consumer_lag)"))
    return f"{total:>9,} answers  {(total - before) / 2:>7,.0f}/s  {'  '.join(shown)}  not yet written {lag:,.0f}", total


def main(url, pid):
    prometheus, started, total = Prometheus(url), time.time(), 0
    while alive(pid):
        time.sleep(2)
        try:
            words, total = line(prometheus, total)
        except (OSError, ValueError, KeyError):
            words = "Prometheus does not answer just now"
        print(f"  {time.time() - started:5.0f} s  {words}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except KeyboardInterrupt:
        os._exit(130)
