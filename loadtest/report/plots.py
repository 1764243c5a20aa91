"""Plots over time, one picture for each question, and all of them on one page."""

import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, FuncFormatter

import prom

OUTCOMES = [
    ("ACCEPTED", "accepted", "#2a9d4e"),
    ("ALREADY_ISSUED", "already_issued", "#7cc6a4"),
    ("SOLD_OUT", "sold_out", "#b8bec6"),
    ("other refusals", "refused", "#8e44ad"),
    ("503 UNAVAILABLE", "unavailable", "#d62728"),
    ("429 TOO_MANY_REQUESTS", "too_many_requests", "#ff7f0e"),
    ("transport errors", "transport", "#111111"),
]
COLOURS = {"k6": "#7f7f7f", "prometheus": "#c7c7c7", "sampler": "#dddddd"}


class Window:
    """The time that is drawn, in seconds since T0: fine steps for what k6 tells, whole seconds for what Prometheus asks."""

    def __init__(self, run, figures):
        self.t0 = figures["t0_ms"] / 1000
        last = max(figures["last_answer_ms"], figures["last_issued_ms"] or 0) / 1000
        start, end = -3.0, last + max(3.0, last * 0.03)
        start, end = max(start, run.start - self.t0), min(end, run.end + 3 - self.t0)
        span = end - start
        self.fine = self._grid(start, end, 0.5 if span <= 60 else max(1.0, span / 400))
        self.whole = self._grid(start, end, max(1.0, span / 400))
        self.rate = f"{max(3, round(2 * (self.whole[1] - self.whole[0]) + 1))}s"
        self.marks = [mark / 1000 for mark in figures["marks_ms"]]

    def _grid(self, start, end, step):
        # T0 itself is a point of the grid: no step has both before and after in it.
        before, after = int(-start / step), int(end / step) + 1
        return [round(self.t0 + step * index, 3) for index in range(-before, max(after, 2) + 1)]

    def x(self, times):
        return [time - self.t0 for time in times]


def line(axes, window, values, label, **style):
    axes.plot(window.x(window.whole), [float("nan") if value is None else value for value in values], label=label, **style)


def gauge(window, series, scale=1.0):
    values = (prom.at(series, time) for time in window.whole)
    return [None if value is None else value * scale for value in values]


def requests(axes, window, prometheus):
    rows = []
    for label, name, colour in OUTCOMES:
        found = prometheus.over_time(f"k6_answers_{name}_total", window.fine)
        rates = prom.rates(found[0][1] if found else {}, window.fine)
        if any(rates):
            rows.append((label, rates, colour))
    if rows:
        labels, values, colours = zip(*rows)
        axes.stackplot(window.x(window.fine), *values, labels=labels, colors=colours, step="pre")
    for _, series in prometheus.over_time("sum(coupon_issue_total)", window.whole):
        given = prom.rates(series, window.whole, None)
        line(axes, window, given, "given by the service", color="#1f4e79", linestyle=":", linewidth=1.2, drawstyle="steps-pre")
    axes.set(title="Answers a second, as the users got them", ylabel="answers/s (stacked)")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def latency(axes, window, prometheus):
    counted = prometheus.histograms("k6_answer_seconds", window.fine)
    for (quantile, values), colour in zip(prom.quantiles(counted, window.fine, (0.5, 0.95, 0.99)).items(), ("#2a9d4e", "#ff7f0e", "#d62728")):
        shown = [float("nan") if value is None else value * 1000 for value in values]
        axes.plot(window.x(window.fine), shown, label=f"p{quantile * 100:.0f}", color=colour, marker=".", markersize=4)
    inside = f"histogram_quantile(0.99, sum by (le) (rate(coupon_issue_seconds_bucket[{window.rate}]))) * 1000"
    for _, series in prometheus.over_time(inside, window.whole):
        line(axes, window, gauge(window, series), "p99 inside the service", color="#1f4e79", linestyle=":", linewidth=1.2)
    axes.set(title="Time to answer one request", ylabel="milliseconds")


def lag(axes, window, prometheus):
    for _, series in prometheus.over_time("sum(coupon_consumer_lag)", window.whole):
        line(axes, window, gauge(window, series), "records not yet written", color="#1f77b4")
    axes.set(title="How far the ledger is behind the journal", ylabel="records")
    axes.yaxis.label.set_color("#1f77b4")
    age = axes.twinx()
    for _, series in prometheus.over_time("max(coupon_consumer_oldest_seconds)", window.whole):
        line(age, window, gauge(window, series), "age of the oldest of them", color="#d62728", linestyle="--")
    age.set_ylabel("seconds", color="#d62728")
    age.set_ylim(0, max(1.0, age.get_ylim()[1]))
    age.spines["top"].set_visible(False)
    return age


def rows(axes, window, prometheus):
    for _, series in prometheus.over_time("sum(coupon_ledger_rows_total)", window.whole):
        line(axes, window, prom.rates(series, window.whole, None), "rows written", color="#1f77b4", drawstyle="steps-pre")
    limits = [series for _, series in prometheus.over_time("max(coupon_limiter_rate)", window.whole)]
    limited = any(value for series in limits for value in series.values())
    if limited:
        line(axes, window, gauge(window, limits[0]), "the limiter's rate", color="#d62728", linestyle="--")
    axes.set(title="Rows written to the ledger" + ("" if limited else " (no rate limit)"), ylabel="rows/s")
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def processes(axes, window, prometheus, expression, values_of):
    found = sorted(prometheus.over_time(expression, window.whole), key=lambda pair: (pair[0]["process"] in COLOURS, pair[0]["process"]))
    for labels, series in found:
        name = labels["process"]
        line(axes, window, values_of(series), name, color=COLOURS.get(name), linestyle="--" if name in COLOURS else "-")


def cpu(axes, window, prometheus):
    processes(axes, window, prometheus, "loadtest_cpu_seconds_total", lambda series: prom.rates(series, window.whole, None))
    axes.set(title=f"CPU of each process (the machine has {os.cpu_count()} cores)", ylabel="cores")


def memory(axes, window, prometheus):
    processes(axes, window, prometheus, "loadtest_resident_bytes", lambda series: gauge(window, series, 1 / 2**20))
    axes.set(title="Memory of each process", ylabel="MiB resident")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


PLOTS = [("requests", requests), ("latency", latency), ("lag", lag), ("rows", rows), ("cpu", cpu), ("memory", memory)]


def one(axes, window, prometheus, plot):
    twin = plot(axes, window, prometheus)
    axes.set_xlabel("seconds since T0")
    axes.set_xlim(window.x(window.whole)[0], window.x(window.whole)[-1])
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.grid(alpha=0.3)
    axes.spines["top"].set_visible(False)
    top = axes.get_xaxis_transform()
    for at, words in [(0, "T0"), *((mark, "stock raised") for mark in window.marks)]:
        axes.axvline(at, color="black", linestyle="--", linewidth=0.9)
        axes.text(at, 1.0, f" {words}", transform=top, va="bottom", ha="center", fontsize=8)
    handles, labels = axes.get_legend_handles_labels()
    if twin:
        more, words = twin.get_legend_handles_labels()
        handles, labels = handles + more, labels + words
    if handles:
        axes.legend(handles, labels, fontsize=8, framealpha=0.85, loc="best")


def draw(folder, run, figures, prometheus):
    """Draws everything; the names of the pictures, the page with all of them first."""
    plt.rcParams.update({"axes.titlepad": 16, "axes.titlesize": 11, "axes.titleweight": "bold", "font.size": 9})
    window = Window(run, figures)
    caption = f"{figures['scenario']}, {figures['stack']}: {figures['users']['asked']:,} users, stock {figures['stock']:,}"
    page, grid = plt.subplots(3, 2, figsize=(15, 14), layout="constrained")
    page.suptitle(caption, fontsize=14)
    names = []
    for (name, plot), axes in zip(PLOTS, grid.flat):
        one(axes, window, prometheus, plot)
        figure, alone = plt.subplots(figsize=(10, 5), layout="constrained")
        figure.suptitle(caption, fontsize=9, color="#555555")
        one(alone, window, prometheus, plot)
        figure.savefig(folder / f"{name}.png", dpi=110)
        plt.close(figure)
        names.append(f"{name}.png")
    page.savefig(folder / "overview.png", dpi=90)
    plt.close(page)
    return ["overview.png", *names]
