"""Makes the report of a run out of what its parts left in its folder, and judges it: exit code 1 when something is wrong."""

import argparse
import json
import os
import pathlib
import sys

import plots
import summary
from figures import figures_of
from prom import Prometheus
from verdict import faults_of


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--apis", type=int, required=True)
    parser.add_argument("--consumers", type=int, required=True)
    parser.add_argument("--from", dest="start", type=float, required=True)
    parser.add_argument("--to", dest="end", type=float, required=True)
    parser.add_argument("--audit-status", type=int, required=True)
    run = parser.parse_args()
    run.coupon = os.environ["COUPON_ID"]
    return run


def main():
    run = arguments()
    prometheus = Prometheus(run.prometheus)
    figures = figures_of(run.folder, run, prometheus)
    figures["faults"] = faults_of(figures)
    drawn = plots.draw(run.folder, run, figures, prometheus)
    (run.folder / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    (run.folder / "summary.md").write_text(summary.markdown(figures, drawn))
    print(summary.terminal(figures))
    print(f"\nreport: {run.folder}/summary.md, {len(drawn)} plots, k6.html")
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
