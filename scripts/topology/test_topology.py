"""python3 -B -m unittest discover -s scripts/topology"""

from __future__ import annotations

import re
import tomllib
import unittest
from pathlib import Path
from typing import Any

import compose
import model
import native
import settings


def described(name: str) -> dict[str, Any]:
    return tomllib.loads((model.DESCRIPTIONS / f"{name}.toml").read_text())


class Topologies(unittest.TestCase):
    def test_every_stage_is_without_a_fault_and_has_a_host_for_the_crowd(self) -> None:
        self.assertEqual(model.names(), ["ha", "ha-two-brokers", "scaled", "single", "split", "split-db"])
        for name in model.names():
            with self.subTest(name):
                topology = model.load(name)
                self.assertIn("rate", topology.tuning["limiter"])
                self.assertEqual([host.name for host in topology.hosts if not host.parts], ["load"])

    def test_the_single_host_leaves_memory_to_the_system(self) -> None:
        host = model.load("single").hosts[0]
        self.assertEqual((host.vcpu, host.memory_mib), (2, 4096))
        self.assertLessEqual(sum(part.memory_mib for part in host.parts), 4096 - 400)

    def test_every_fault_is_named_at_once(self) -> None:
        broken = described("ha")
        broken["journal"]["replication"] = 4
        hosts = broken["hosts"]
        hosts["db"]["memory_mib"] = 1024
        del hosts["infra-3"]["parts"]["sentinel-3"]
        hosts["infra-1"]["parts"]["redis-1"]["maxmemory_mib"] = 2048
        hosts["infra-2"]["parts"]["redis-2"]["replica_of"] = "redis-3"
        found = "\n".join(model.faults(model.read("broken", broken, {})))
        for fault in ("host db may take", "replication 4", "2 sentinels", "redis-1: maxmemory_mib", "redis-2 follows redis-3"):
            self.assertIn(fault, found)

    def test_a_key_that_nobody_reads_is_refused(self) -> None:
        broken = described("split")
        broken["hosts"]["api"]["parts"]["api"]["memory_mb"] = 1
        with self.assertRaisesRegex(model.BadTopology, "api.memory_mb"):
            model.read("broken", broken, {})

    def test_containers_and_processes_are_started_with_the_same(self) -> None:
        for name in model.names():
            topology = model.load(name)
            place = native.Namespaces(topology, Path("/state"))
            for part in topology.parts:
                with self.subTest(f"{name}: {part.name}"):
                    there = settings.settings(topology, part, compose.Containers())
                    here = settings.settings(topology, part, place)
                    self.assertEqual(len(there.arguments), len(here.arguments))
                    self.assertEqual(there.environment.keys(), here.environment.keys())
                    self.assertEqual(compose.container(topology, part)["mem_limit"], f"{part.memory_mib}m")

    def test_the_shares_of_all_hosts_are_what_the_machine_has(self) -> None:
        for name in model.names():
            for cores in (1, 2, 8, 64):
                with self.subTest(f"{name} on {cores}"):
                    topology = model.load(name)
                    given = native.shares(topology, native.Machine(cores))
                    total = sum(share.cores for share in given)
                    wanted = sum(host.vcpu for host in topology.hosts)
                    self.assertAlmostEqual(total, min(cores, wanted), delta=0.01)

    def test_no_host_has_more_than_its_vcpus_and_its_share_is_its_weight(self) -> None:
        topology = model.load("ha")
        for share in native.shares(topology, native.Machine(2, crowd=0.4)):
            self.assertEqual(share.quota_us, min(share.host.vcpu, 2) * native.PERIOD_US)
            self.assertAlmostEqual(share.weight, share.cores * native.WEIGHT, delta=1)
        fixed = {share.host.name: share for share in native.shares(topology, native.Machine(2, crowd=0.4, fixed=True))}
        self.assertEqual(fixed["load"].quota_us, 0.4 * 2 * native.PERIOD_US)
        self.assertEqual(fixed["db"].quota_us // fixed["api-1"].quota_us, 2)

    def test_another_number_of_hosts(self) -> None:
        topology = model.load("scaled", {"api": 3, "consumer": 4})
        self.assertEqual([part.name for part in topology.of_kind("api")], ["api-1", "api-2", "api-3"])
        self.assertEqual([part.host for part in topology.of_kind("consumer")], ["consumer-1", "consumer-2", "consumer-3", "consumer-4"])
        proxy = settings.settings(topology, topology.part("nginx"), native.Namespaces(topology, Path("/state")))
        self.assertEqual(proxy.files["nginx.conf"].count("max_fails=0"), 3)
        with self.assertRaisesRegex(model.BadTopology, "single"):
            model.load("single", {"api": 2})

    def test_without_monitoring_its_host_is_gone_and_the_crowd_s_stays(self) -> None:
        names = [host.name for host in model.load("split").without(*model.MONITORING).hosts]
        self.assertEqual(names, ["api", "infra", "consumer", "load"])
        parts = [part.kind for part in model.load("single").without(*model.MONITORING).parts]
        self.assertEqual(parts, ["redis", "kafka", "mysql", "api", "consumer"])

    def test_prometheus_asks_every_part_that_has_something_to_say(self) -> None:
        for name in model.names():
            topology = model.load(name)
            place = native.Namespaces(topology, Path("/state"))
            made = settings.settings(topology, topology.of_kind("prometheus")[0], place).files["prometheus.yml"]
            for part in topology.parts:
                with self.subTest(f"{name}: {part.name}"):
                    port = part.ops_port if part.kind in model.SERVICE else part.port
                    if part.kind in model.SERVICE or part.kind.endswith("-exporter") or part.kind == "redis":
                        self.assertIn(f"{place.address(part)}:{port}\"", made)
            for host in topology.hosts:
                self.assertEqual(sum(part.kind == "node-exporter" for part in host.parts), min(1, len(host.parts)), f"{name}: {host.name}")
            self.assertEqual(len(topology.of_kind("nginx")), len(topology.of_kind("nginx-exporter")), name)

    def test_the_service_asks_all_sentinels_and_all_brokers(self) -> None:
        topology = model.load("ha")
        made = settings.settings(topology, topology.part("api-1"), native.Namespaces(topology, Path("/state")))
        self.assertRegex(made.environment["COUPON__REDIS__URL"], r"^redis-sentinel://\S+:26379/0\?sentinelServiceName=main&node=\S+:26380&node=")
        self.assertEqual(len(made.environment["COUPON__KAFKA__BROKERS"].split(",")), 3)
        self.assertEqual(made.environment["COUPON__KAFKA__REPLICATION_FACTOR"], "3")

    def test_images_are_named_by_version(self) -> None:
        for image in compose.IMAGES.values():
            self.assertRegex(image, r":v?\d+\.\d+\.\d+")

    def test_what_yaml_would_read_otherwise_is_quoted(self) -> None:
        for text in ("yes", "no", "5", "5s", "*", "", "a: b", "${X:-y}", "it's"):
            self.assertTrue(re.fullmatch(r"'.*'", compose.scalar(text)), text)
        self.assertEqual(compose.scalar("it's"), "'it''s'")
        self.assertEqual(compose.scalar("--port=1"), "--port=1")


if __name__ == "__main__":
    unittest.main()
