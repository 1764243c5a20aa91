"""A topology as it is described in docker/topologies/: hosts, the parts on each, their limits and settings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTIONS = ROOT / "docker" / "topologies"
TUNINGS = ROOT / "config" / "stages"

# The first port of each kind; a second part of the kind has the next one. So every port is taken once in a topology, and a part has the
# same port in a container, in a namespace and on a real host.
FIRST_PORT = {
    "redis": 6379,
    "sentinel": 26379,
    "kafka": 9092,
    "mysql": 3306,
    "nginx": 8000,
    "api": 8080,
    "prometheus": 9090,
    "grafana": 3000,
    "redis-exporter": 9121,
    "kafka-exporter": 9308,
    "mysqld-exporter": 9104,
    "nginx-exporter": 9113,
    # One a host: apart from the others, because there may be many.
    "node-exporter": 9150,
}
FIRST_CONTROLLER_PORT = 9192
FIRST_OPS_PORT = 9200
# The service's processes: they listen for probes and metrics on an ops port.
SERVICE = ("api", "consumer")
# Where nginx says how busy it is; nobody asks but its exporter.
NGINX_STATUS_PORT = 8100
MONITORING = ("prometheus", "grafana", "redis-exporter", "kafka-exporter", "mysqld-exporter", "nginx-exporter", "node-exporter")
# What is to be had as a container image only.
CONTAINERS_ONLY = ("grafana", "kafka-exporter")
# The setting that says how much of its memory a server may take for itself. It must be below the limit.
MEMORY_SETTING = {"redis": "maxmemory_mib", "kafka": "heap_mib", "mysql": "buffer_pool_mib"}


class BadTopology(Exception):
    """What is wrong with a description, all of it."""


@dataclass(frozen=True)
class Part:
    name: str
    kind: str
    host: str
    memory_mib: int
    # Of the server itself, by MEMORY_SETTING; 0 where the kind has none.
    own_memory_mib: int
    # The Redis that a replica follows; empty for all others.
    replica_of: str
    # From 1, among the parts of the kind.
    number: int
    # Where clients reach it; 0 for a consumer, which has none.
    port: int
    # Probes and metrics of the service, and the status page of nginx; 0 for other servers.
    ops_port: int

    @property
    def controller_port(self) -> int:
        """Where the brokers of a cluster agree with one another."""
        return FIRST_CONTROLLER_PORT + self.number - 1


@dataclass(frozen=True)
class Host:
    name: str
    vcpu: float
    memory_mib: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Topology:
    name: str
    hosts: tuple[Host, ...]
    partitions: int
    replication: int
    min_insync: int
    # Keys of the service that this topology changes, as in config/stages/: section -> key -> value.
    tuning: dict[str, dict[str, Any]]

    @property
    def parts(self) -> list[Part]:
        return [part for host in self.hosts for part in host.parts]

    def of_kind(self, *kinds: str) -> list[Part]:
        return [part for part in self.parts if part.kind in kinds]

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def without(self, *kinds: str) -> Topology:
        """The same without parts of these kinds, and without hosts that have no others."""
        hosts = []
        for host in self.hosts:
            parts = tuple(part for part in host.parts if part.kind not in kinds)
            if parts or not host.parts:
                hosts.append(replace(host, parts=parts))
        return replace(self, hosts=tuple(hosts))

    @property
    def redis_primary(self) -> Part:
        return next(part for part in self.of_kind("redis") if not part.replica_of)

    @property
    def doors(self) -> list[Part]:
        """Where the crowd knocks: the proxy, else every API."""
        return self.of_kind("nginx") or self.of_kind("api")


def names() -> list[str]:
    return sorted(path.stem for path in DESCRIPTIONS.glob("*.toml"))


def load(name: str, counts: dict[str, int] | None = None) -> Topology:
    """Reads a description and its tuning; raises BadTopology with every fault. `counts` is of kinds that shall have another number of hosts."""
    path = DESCRIPTIONS / f"{name}.toml"
    if not path.is_file():
        raise BadTopology(f"there is no topology '{name}'; there are {', '.join(names())}")
    tuning = TUNINGS / f"{name}.toml"
    try:
        described = tomllib.loads(path.read_text())
        for kind, count in (counts or {}).items():
            described["hosts"] = with_count(name, described["hosts"], kind, count)
        tuned = tomllib.loads(tuning.read_text()) if tuning.is_file() else {}
        topology = read(name, described, tuned)
    except tomllib.TOMLDecodeError as error:
        raise BadTopology(f"{name}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BadTopology(f"{name}: a value is missing or of another type: {error!r}") from error
    found = faults(topology)
    if found:
        raise BadTopology("\n".join(f"{name}: {fault}" for fault in found))
    return topology


def with_count(name: str, hosts: dict[str, Any], kind: str, count: int) -> dict[str, Any]:
    """The same with `count` hosts that have a part of this kind and nothing else but who watches the host, all as the first one is."""

    def kinds(host: dict[str, Any]) -> set[str]:
        return {part["kind"] for part in host.get("parts", {}).values()} - {"node-exporter"}

    alike = [host for host, given in hosts.items() if kinds(given) == {kind}]
    if not alike or count < 1:
        raise BadTopology(f"{name}: there cannot be {count} hosts of the kind {kind}")
    first = hosts[alike[0]]

    def another(name: str) -> dict[str, Any]:
        parts = first["parts"].values()
        return {**first, "parts": {name if part["kind"] == kind else f"node-{name}": part for part in parts}}

    made: dict[str, Any] = {}
    for host, given in hosts.items():
        if host == alike[0]:
            made |= {f"{kind}-{number}": another(f"{kind}-{number}") for number in range(1, count + 1)}
        elif host not in alike:
            made[host] = given
    return made


def read(name: str, described: dict[str, Any], tuning: dict[str, dict[str, Any]]) -> Topology:
    counts: dict[str, int] = {}
    unknown = [key for key in described if key not in ("journal", "hosts")]
    hosts = []
    for host_name, host in described["hosts"].items():
        unknown += [f"hosts.{host_name}.{key}" for key in host if key not in ("vcpu", "memory_mib", "parts")]
        parts = []
        for part_name, settings in host.get("parts", {}).items():
            kind = settings["kind"]
            if kind != "consumer" and kind not in FIRST_PORT:
                raise BadTopology(f"{name}: {part_name} is of the unknown kind '{kind}'")
            allowed = {"kind", "memory_mib", MEMORY_SETTING.get(kind, "kind"), "replica_of" if kind == "redis" else "kind"}
            unknown += [f"{part_name}.{key}" for key in settings if key not in allowed]
            counts[kind] = counts.get(kind, 0) + 1
            ops_port = 0
            if kind in SERVICE:
                ops_port = FIRST_OPS_PORT + sum(counts.get(role, 0) for role in SERVICE) - 1
            if kind == "nginx":
                ops_port = NGINX_STATUS_PORT
            parts.append(
                Part(
                    name=part_name,
                    kind=kind,
                    host=host_name,
                    memory_mib=int(settings["memory_mib"]),
                    own_memory_mib=int(settings[MEMORY_SETTING[kind]]) if kind in MEMORY_SETTING else 0,
                    replica_of=settings.get("replica_of", ""),
                    number=counts[kind],
                    port=FIRST_PORT[kind] + counts[kind] - 1 if kind in FIRST_PORT else 0,
                    ops_port=ops_port,
                )
            )
        hosts.append(Host(host_name, float(host["vcpu"]), int(host["memory_mib"]), tuple(parts)))
    if unknown:
        raise BadTopology(f"{name}: unknown keys: {', '.join(unknown)}")
    journal = described["journal"]
    return Topology(
        name, tuple(hosts), int(journal["partitions"]), int(journal["replication"]), int(journal["min_insync"]), tuning
    )


def faults(topology: Topology) -> list[str]:
    """Every rule that a topology breaks."""
    found = []
    for host in topology.hosts:
        taken = sum(part.memory_mib for part in host.parts)
        if taken >= host.memory_mib:
            found.append(f"the parts of host {host.name} may take {taken} MiB, and it has {host.memory_mib}")
        if host.vcpu <= 0:
            found.append(f"host {host.name} has no CPU")
        if sum(part.kind == "node-exporter" for part in host.parts) > 1:
            found.append(f"host {host.name} has two node exporters")
    seen: dict[str, str] = {}
    for part in topology.parts:
        if part.name in seen:
            found.append(f"{part.name} is on {seen[part.name]} and on {part.host}")
        seen[part.name] = part.host
        if part.own_memory_mib >= part.memory_mib:
            found.append(f"{part.name}: {MEMORY_SETTING[part.kind]} must be below memory_mib")
    ports = [port for part in topology.parts for port in (part.port, part.ops_port) if port]
    if len(ports) != len(set(ports)):
        found.append(f"a port is taken twice: {sorted(ports)}")
    brokers = len(topology.of_kind("kafka"))
    if not 1 <= topology.min_insync <= topology.replication <= brokers:
        found.append(f"1 <= min_insync {topology.min_insync} <= replication {topology.replication} <= {brokers} brokers does not hold")
    for kind, least, most in (("mysql", 1, 1), ("api", 1, 99), ("consumer", 1, 99), ("nginx", 0, 1), ("nginx-exporter", 0, 1), ("prometheus", 0, 1)):
        count = len(topology.of_kind(kind))
        if not least <= count <= most:
            found.append(f"there are {count} parts of the kind {kind}")
    found += redis_faults(topology)
    return found


def redis_faults(topology: Topology) -> list[str]:
    servers = topology.of_kind("redis")
    primaries = [part.name for part in servers if not part.replica_of]
    if len(primaries) != 1:
        return [f"one Redis must be the primary, and these are: {', '.join(primaries) or 'none'}"]
    found = [f"{part.name} follows {part.replica_of}, which is not the primary" for part in servers if part.replica_of not in ("", *primaries)]
    sentinels = len(topology.of_kind("sentinel"))
    if sentinels and (sentinels < 3 or sentinels % 2 == 0):
        found.append(f"{sentinels} sentinels have no useful majority: take 3 or 5")
    if bool(sentinels) != (len(servers) > 1):
        found.append("a replica and sentinels belong together")
    return found
