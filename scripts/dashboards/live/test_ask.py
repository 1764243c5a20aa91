"""python3 -B -m unittest discover -s scripts/dashboards/live"""

from __future__ import annotations

import unittest

import remote_write
from ask import selectors


class Selectors(unittest.TestCase):
    def test_the_series_of_a_query_are_found_and_nothing_else(self) -> None:
        cases = {
            'sum by (result) (rate(coupon_issue_total{result="SOLD_OUT"}[1m]))': ['coupon_issue_total{result="SOLD_OUT"}'],
            "coupon:unavailable:ratio1m or vector(0)": ["coupon:unavailable:ratio1m"],
            'count_values("broker", kafka_topic_partition_leader)': ["kafka_topic_partition_leader"],
            "a_b > 0\n  and on () (c_d == 0)\n  and on (x, y) (e_f >= max_over_time(e_f[1m]))": ["a_b", "c_d", "e_f", "e_f"],
            "max by (topic) (k_p) - (count by (topic) (k_l) or 0 * max by (topic) (k_p))": ["k_p", "k_l", "k_p"],
            'process_open_fds{job="a"} / process_max_fds > 0.8': ['process_open_fds{job="a"}', "process_max_fds"],
            'up{job=~"a|b (c)"} == 0': ['up{job=~"a|b (c)"}'],
            "time() - last > 900 and last > 0": ["last", "last"],
        }
        for query, expected in cases.items():
            with self.subTest(query):
                self.assertEqual(selectors(query), expected)


class RemoteWrite(unittest.TestCase):
    def test_numbers_are_written_as_protobuf_writes_them(self) -> None:
        self.assertEqual(remote_write.varint(300), b"\xac\x02")
        self.assertEqual([remote_write.zigzag(value) for value in (0, -1, 1, -2)], [0, 1, 2, 3])
        self.assertEqual(remote_write.message(2, b"testing"), b"\x12\x07testing")

    def test_literals_hold_all_of_a_long_body(self) -> None:
        body = bytes(range(256)) * 300
        packed = remote_write.uncompressed(body)
        self.assertEqual(packed[:3], remote_write.varint(len(body)))
        self.assertEqual(packed[3:6], b"\xf4\xff\xff")
        self.assertEqual(packed[6 : 6 + 65_536] + packed[6 + 65_536 + 3 :], body)


if __name__ == "__main__":
    unittest.main()
