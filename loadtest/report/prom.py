"""Questions to Prometheus' HTTP API."""

import json
import urllib.parse
import urllib.request


class Prometheus:
    def __init__(self, url):
        self.url = url

    def _get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
            return json.load(answer)["data"]["result"]

    def now(self, expression):
        """[(labels, value)]"""
        return [(series["metric"], float(series["value"][1])) for series in self._get("query", query=expression)]

    def over_time(self, expression, times):
        """[(labels, {time: value})] on a grid of evenly spaced times."""
        found = self._range(expression, times)
        return [(series["metric"], {float(at): float(value) for at, value in series.get("values", [])}) for series in found]

    def histograms(self, name, times):
        """{time: {(from, to): count}} of one native histogram, as counted since the start."""
        found = self._range(name, times)
        if not found:
            return {}
        return {
            float(at): {(float(low), float(high)): float(count) for _, low, high, count in histogram.get("buckets", [])}
            for at, histogram in found[0].get("histograms", [])
        }

    def _range(self, expression, times):
        return self._get("query_range", query=expression, start=times[0], end=times[-1], step=times[1] - times[0])


def at(series, time):
    """The value at a time of the grid; the API's times are rounded to milliseconds."""
    return series.get(round(time, 3))


def rates(series, times, first=0.0):
    """What a counter gained a second in each step. Before its first sample it was `first`; None: that is not known."""
    step = times[1] - times[0]
    values, last = [], first
    for time in times:
        value = at(series, time)
        value = last if value is None else value
        values.append(None if last is None else max(0.0, value - last) / step)
        last = value
    return values


def quantiles(histograms, times, wanted):
    """For each wanted quantile, its value in each step of the grid; None where nothing was counted."""
    found = {quantile: [] for quantile in wanted}
    last = {}
    for time in times:
        counts = at(histograms, time)
        counts = last if counts is None else counts
        gained = sorted((bounds, count - last.get(bounds, 0.0)) for bounds, count in counts.items())
        for quantile in wanted:
            found[quantile].append(_quantile([pair for pair in gained if pair[1] > 0], quantile))
        last = counts
    return found


def _quantile(gained, quantile):
    total = sum(count for _, count in gained)
    if not total:
        return None
    below, rank = 0.0, quantile * total
    for (low, high), count in gained:
        if below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below += count
    return gained[-1][0][1]
