"""The row of a run against a stage: python3 -B -m unittest discover -s scripts/topology"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stage"))
import row  # noqa: E402
import sampler  # noqa: E402

import model  # noqa: E402


def sample(at: float, **processes: dict[str, float]) -> dict[str, Any]:
    return {"at": at, "processes": processes, "cpu": {}}


class Row(unittest.TestCase):
    def test_every_stage_has_figures_to_be_compared_with(self) -> None:
        self.assertEqual(sorted(row.ORIGINAL), model.names())
        self.assertEqual(row.original_of("single", 500)[1]["p95_ms"], 2950)
        self.assertEqual(row.original_of("split", 123)[1]["api_tps_avg"], 1200)

    def test_a_page_of_metrics_is_summed(self) -> None:
        page = """# HELP coupon_issue_total Issue calls by result
coupon_issue_total{result="ACCEPTED"} 5
coupon_issue_total{result="SOLD_OUT"} 2
coupon_issue_total{result="UNAVAILABLE"} 1
coupon_ledger_rows_total 4
coupon_consumer_lag{partition="0"} 1
coupon_consumer_lag{partition="1"} 2
coupon_dead_letters{state="open"} 0
coupon_dead_letters{state="replayed"} 9
"""
        self.assertEqual(sampler.figures(page), {"answers": 7, "not_final": 1, "rows": 4, "lag": 3, "dead_letters": 0})

    def test_a_process_that_is_started_again_goes_on_counting(self) -> None:
        samples = [
            sample(0, a={"rows": 100}),
            sample(1, a={"rows": 110}),
            sample(2, a={}),
            sample(3, a={"rows": 5}, b={"rows": 7}),
        ]
        self.assertEqual(row.totals(samples, "rows"), [(0, 0), (1, 10), (2, 10), (3, 22)])

    def test_rates(self) -> None:
        series = [(float(second), 100.0 * second + (500 if second >= 20 else 0)) for second in range(41)]
        self.assertAlmostEqual(row.average(series, 0.5, 10.5), 100)
        self.assertAlmostEqual(row.highest(series, 0, 40), 150)

    def test_what_was_not_published_is_beaten_only_by_something_else_that_was(self) -> None:
        ours = {"p95_ms": 2000, "api_tps_avg": 2400, "api_tps_max": 2600, "consumer_tps_avg": 2600, "consumer_tps_max": 2600, "lag_end": 0, "success_rate": 1.0}
        found = row.beats(ours, row.original_of("scaled", 10000)[1])
        self.assertEqual([name for name, better in found.items() if not better], ["api_tps_avg"])
        found = row.beats({**ours, "p95_ms": 3000, "lag_end": 1, "success_rate": 0.9999}, row.original_of("scaled", 10000)[1])
        self.assertEqual([name for name, better in found.items() if better], ["api_tps_max", "consumer_tps_avg", "consumer_tps_max"])

    def test_a_slot_belongs_to_the_event_that_began_it(self) -> None:
        slot = dict.fromkeys((*row.OUTCOMES, "p95_ms", "max_ms"), 1)
        events = [{"event": name} for name in ("kill kafka-2", "kill redis-1", "start kafka-2", "start redis-1", "start api-3")]
        lines = row.slots_of({"events": events, "slots": [slot] * 3})
        self.assertEqual([line.split(" | ")[0] for line in lines[2:]], ["| kill kafka-2", "| kill redis-1", "| start api-3"])


if __name__ == "__main__":
    unittest.main()
