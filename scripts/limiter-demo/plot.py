"""Draws what watch.py wrote, the fixed limit beside the adaptive one, and prints what the phases come to: plot.py CSV PNG"""

import csv
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"fixed": "#c0504d", "adaptive": "#2a6f97"}
ROWS = [
    ("rate", "limit in force,\nrows/s", 1),
    ("rows_per_second", "rows written,\nrows/s", 1),
    ("lag", "records not yet\nwritten", 1),
    ("oldest_seconds", "oldest of them, s", 1),
    ("commit_p95_seconds", "commit, p95, s", 1),
    ("open_share", "time with a\ntransaction open, %", 100),
]


def number(text):
    return float(text) if text else float("nan")


def read(path):
    runs = {}
    with open(path) as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["limit"], []).append(row)
    return runs


def phases(rows):
    """Name, first and last second of each."""
    found = []
    for row in rows:
        second = number(row["second"])
        if not found or found[-1][0] != row["phase"]:
            found.append([row["phase"], second, second])
        found[-1][2] = second
    return found


def draw(runs, path):
    figure, axes = plt.subplots(len(ROWS), 1, figsize=(11, 15), sharex=True)
    for panel, (column, label, scale) in zip(axes, ROWS):
        for name, rows in runs.items():
            panel.plot([number(row["second"]) for row in rows], [number(row[column]) * scale for row in rows],
                       color=COLOURS.get(name), label=name, linewidth=1.6)
        for phase, first, last in phases(next(iter(runs.values()))):
            if phase == "a tenth":
                panel.axvspan(first, last, color="#f2e9d8", zorder=0)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
    axes[0].set_title("The same inflow under a fixed and an adaptive limit; shaded: the database at about a tenth of its speed")
    axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def median(rows, column):
    values = [number(row[column]) for row in rows if row[column]]
    return statistics.median(values) if values else float("nan")


def tell(runs):
    print(f"{'limit':<10}{'phase':<18}{'limit rows/s':>13}{'written rows/s':>16}{'lag at end':>12}{'oldest, s':>11}{'commit p95, s':>15}"
          f"{'rows/commit s':>15}{'open, %':>9}")
    for name, rows in runs.items():
        for phase, _, _ in phases(rows):
            part = [row for row in rows if row["phase"] == phase]
            oldest = max(number(row["oldest_seconds"]) for row in part)
            print(f"{name:<10}{phase:<18}{median(part, 'rate'):>13.0f}{median(part, 'rows_per_second'):>16.0f}{number(part[-1]['lag']):>12.0f}"
                  f"{oldest:>11.1f}{median(part, 'commit_p95_seconds'):>15.3f}{median(part, 'rows_per_commit_second'):>15.0f}"
                  f"{median(part, 'open_share') * 100:>9.0f}")
        back = [row for row in rows if row["phase"] == "full speed again"]
        start = number(back[0]["second"])
        # The gauge of the oldest record is 0 between two batches; the lag is not.
        little = max(number(row["lag"]) for row in rows) * 0.02
        drained = next((number(row["second"]) - start for row in back if number(row["lag"]) <= little), None)
        print(f"{name}: {'not drained' if drained is None else f'drained {drained:.1f} s'} after the database was back")


runs = read(sys.argv[1])
draw(runs, sys.argv[2])
tell(runs)
