"""A topology as processes of one machine: a network namespace a host, cgroups for memory and CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compose import host_variable
from model import ROOT, Host, Part, Topology
from settings import settings

# A network of the namespaces alone; the bridge has the first address and is how the machine itself reaches them.
NETWORK = "10.208.77"
FIRST_HOST = 11
# Short, so that a host that used up its share waits for milliseconds and not for a tenth of a second.
PERIOD_US = 20_000
# What the kernel grants at least.
LEAST_QUOTA_US = 1_000


# The weight of a host for each core that is its own while all hosts are busy; the kernel takes 2 at least.
WEIGHT = 1024
LEAST_WEIGHT = 2


@dataclass(frozen=True)
class Machine:
    """The CPUs of this machine, and how they are given to the hosts."""

    cores: int
    # Of the cores, for the hosts without parts: the crowd is no part of what is measured, and costs more than it.
    crowd: float = 0.5
    # A host has no more than its own share even while others are idle.
    fixed: bool = False


@dataclass(frozen=True)
class Share:
    """What a host gets of this machine's CPUs."""

    host: Host
    # While all hosts are busy.
    cores: float
    # Never more than this.
    quota_us: int

    @property
    def weight(self) -> int:
        return max(LEAST_WEIGHT, round(self.cores * WEIGHT))


def split(topology: Topology, machine: Machine) -> tuple[float, float]:
    """How much of its CPUs a host with parts has while all are busy, and one without."""
    crowd = sum(host.vcpu for host in topology.hosts if not host.parts)
    system = sum(host.vcpu for host in topology.hosts if host.parts)
    for_crowd = min(crowd, machine.cores * machine.crowd)
    for_system = min(system, machine.cores - for_crowd)
    return for_system / system, for_crowd / crowd if crowd else 0.0


def factor(topology: Topology, machine: Machine) -> float:
    """One for all hosts with parts, so that the CPUs of all hosts together are no more than this machine has."""
    return split(topology, machine)[0]


def shares(topology: Topology, machine: Machine) -> list[Share]:
    system, crowd = split(topology, machine)
    found = []
    for host in topology.hosts:
        cores = host.vcpu * (system if host.parts else crowd)
        most = cores if machine.fixed else min(host.vcpu, machine.cores)
        found.append(Share(host, cores, max(LEAST_QUOTA_US, int(most * PERIOD_US))))
    return found


class Namespaces:
    """Addresses and folders of processes in namespaces; each part has a folder of its own in the state's."""

    def __init__(self, topology: Topology, state: Path) -> None:
        self.addresses = {host.name: f"{NETWORK}.{FIRST_HOST + index}" for index, host in enumerate(topology.hosts)}
        self.state = state

    def address(self, part: Part) -> str:
        return self.addresses[part.host]

    def data(self, part: Part) -> str:
        return str(self.state / part.name / "data")

    def file(self, part: Part, name: str) -> str:
        return str(self.state / part.name / name)

    def mount(self, _part: Part, name: str) -> str:
        return str(ROOT / name)

    def root(self) -> str:
        return "/"


def show(topology: Topology, machine: Machine) -> str:
    """The plan for people: which process runs in which namespace, with which limits and settings."""
    place = Namespaces(topology, Path("STATE"))
    scale = factor(topology, machine)
    lines = [f"{topology.name}: {len(topology.hosts)} hosts on {machine.cores} cores; every host with parts has {scale:.3f} of its CPUs while all are busy"]
    for share in shares(topology, machine):
        host = share.host
        lines.append(
            f"\n{host.name}  {place.addresses[host.name]}  {host.vcpu:g} vCPU -> {share.cores:.2f} cores while all are busy, "
            f"{share.quota_us / PERIOD_US:.2f} at most  {host.memory_mib} MiB, {sum(part.memory_mib for part in host.parts)} of them given"
        )
        for part in host.parts:
            made = settings(topology, part, place)
            ports = " ".join(str(port) for port in (part.port, part.ops_port) if port)
            lines.append(f"  {part.name} ({part.kind}), {part.memory_mib} MiB, port {ports}")
            lines += [f"    {' '.join(made.arguments)}"] if made.arguments else []
            lines += [f"    {key}={value}" for key, value in made.environment.items() if part.kind != "kafka"]
            lines += [f"    {name}" for name in made.files]
    return "\n".join(lines) + "\n"


def write(topology: Topology, machine: Machine, state: Path) -> None:
    """The plan for scripts/stage.sh.

    STATE/plan/hosts and STATE/plan/parts have a line each for a host and a part; STATE/PART/ has what the part is started with: its
    files, and its arguments and environment with a NUL behind each.
    """
    place = Namespaces(topology, state)
    plan = state / "plan"
    plan.mkdir(parents=True, exist_ok=True)
    (plan / "factor").write_text(f"{factor(topology, machine):.3f}\n")
    (plan / "network").write_text(f"{NETWORK}.1/24\n")
    (plan / "period").write_text(f"{PERIOD_US}\n")
    (plan / "hosts").write_text(
        "".join(
            f"{share.host.name} {place.addresses[share.host.name]} {share.host.vcpu:g} {share.cores:.3f} {share.weight} {share.quota_us} "
            f"{share.host.memory_mib}\n"
            for share in shares(topology, machine)
        )
    )
    (plan / "parts").write_text(
        "".join(
            f"{part.name} {part.kind} {part.host} {place.address(part)} {part.port} {part.ops_port} {part.memory_mib}\n"
            for part in topology.parts
        )
    )
    for part in topology.parts:
        folder = state / part.name
        Path(place.data(part)).parent.mkdir(parents=True, exist_ok=True)
        # MySQL and Kafka make their data folders themselves, when all of it is well.
        if part.kind not in ("mysql", "kafka"):
            Path(place.data(part)).mkdir(exist_ok=True)
        made = settings(topology, part, place)
        (folder / "arguments").write_text("".join(f"{word}\0" for word in made.arguments))
        (folder / "environment").write_text("".join(f"{key}={value}\0" for key, value in made.environment.items()))
        for name, text in made.files.items():
            path = folder / name
            # A sentinel writes into its file what it learns.
            if part.kind == "sentinel" and path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (state / "addresses.env").write_text(addresses(topology, place))


def addresses(topology: Topology, place: Namespaces) -> str:
    """For whoever drives the stage: to be sourced by a shell."""
    lines = [f"STAGE={topology.name}"]
    lines += [f"{host_variable(host)}={address}" for host, address in place.addresses.items()]
    lines.append("BASE_URLS=" + ",".join(f"http://{place.address(door)}:{door.port}" for door in topology.doors))
    lines.append("READY_URLS=" + ",".join(f"http://{place.address(p)}:{p.ops_port}/readyz" for p in topology.of_kind("api", "consumer")))
    lines += [f"PROMETHEUS_URL=http://{place.address(p)}:{p.port}" for p in topology.of_kind("prometheus")]
    # What `coupon-svc audit` and the other commands need to know.
    made = settings(topology, topology.of_kind("consumer")[0], place).environment
    for key in ("COUPON__PARTS", "COUPON__REDIS__URL", "COUPON__KAFKA__BROKERS", "COUPON__KAFKA__PARTITIONS", "COUPON__MYSQL__URL"):
        lines.append(f"{key}='{made[key]}'")
    return "".join(f"{line}\n" for line in lines)
