"""A topology as a compose file: one service a part, in the order of the hosts."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from model import ROOT, Host, Part, Topology
from place import Settings
from settings import settings

FOLDER = ROOT / "docker" / "compose"
# A cluster of brokers is formatted with one id; it is no secret.
CLUSTER_ID = "Y291cG9uLXN0YWdlLTAwMQ"

IMAGES = {
    "redis": "redis:7.2.7-bookworm",
    "sentinel": "redis:7.2.7-bookworm",
    "kafka": "apache/kafka:3.9.1",
    "mysql": "mysql:9.4.0",
    "nginx": "nginx:1.28.0-bookworm",
    "prometheus": "prom/prometheus:v3.4.1",
    "grafana": "grafana/grafana:12.0.2",
    "redis-exporter": "oliver006/redis_exporter:v1.67.0",
    "kafka-exporter": "danielqsj/kafka-exporter:v1.9.0",
    "mysqld-exporter": "prom/mysqld-exporter:v0.14.0",
    "nginx-exporter": "nginx/nginx-prometheus-exporter:1.4.2",
    "node-exporter": "prom/node-exporter:v1.9.1",
}
# What begins the command; where nothing is said the image's entrypoint does. A part with files needs it said.
PROGRAMS = {
    "redis": ["redis-server"],
    "sentinel": ["docker-entrypoint.sh", "redis-server"],
    "nginx": ["nginx"],
    "prometheus": ["/bin/prometheus"],
    "grafana": ["/run.sh"],
}
DATA = {"redis": "/data", "sentinel": "/data", "kafka": "/var/lib/kafka/data", "mysql": "/var/lib/mysql", "prometheus": "/prometheus"}
# A part waits for those of its own host only: on real hosts nobody could wait for the others. Whoever comes too early is started again.
NEEDS = {
    "api": ("redis", "sentinel", "kafka", "mysql"),
    "consumer": ("redis", "sentinel", "kafka", "mysql"),
    "sentinel": ("redis",),
    "nginx": ("api",),
    "grafana": ("prometheus",),
    "redis-exporter": ("redis",),
    "kafka-exporter": ("kafka",),
    "mysqld-exporter": ("mysql",),
    "nginx-exporter": ("nginx",),
}
# A dollar that is not of an address: compose would take it for a variable of its own.
OTHER_DOLLAR = re.compile(r"\$(?!\{[A-Z0-9_]+_ADDRESS:-)")
# Writes files given as arguments, path and text in turn up to "--", and becomes the rest. A file that is there stays: sentinels write
# into theirs what they learn.
WRITE_FILES = """\
while [ "$$1" != -- ]; do
  mkdir -p "$$(dirname "$$1")"
  [ -s "$$1" ] || printf %s "$$2" >"$$1"
  shift 2
done
shift
exec "$$@"
"""


class Containers:
    """Addresses and folders in containers."""

    def address(self, part: Part) -> str:
        """The service's name on one engine; on real hosts a variable names the host."""
        return f"${{{host_variable(part.host)}:-{part.name}}}"

    def data(self, part: Part) -> str:
        return DATA.get(part.kind, "/tmp")

    def file(self, part: Part, name: str) -> str:
        return f"/data/{name}" if part.kind == "sentinel" else f"/tmp/coupon/{name}"

    def mount(self, _part: Part, name: str) -> str:
        return f"/project/{name}"

    def root(self) -> str:
        return "/host"


def host_variable(host: str) -> str:
    return f"{host.upper().replace('-', '_')}_ADDRESS"


def compose(topology: Topology) -> str:
    volumes = {part.name: None for part in topology.parts if part.kind in DATA}
    document = {
        "services": {part.name: container(topology, part) for part in topology.parts},
        "volumes": volumes,
    }
    return head(topology) + "\n".join(yaml(document)) + "\n"


def head(topology: Topology) -> str:
    name = topology.name
    file = f"docker/compose/{name}.yaml"
    lines = [
        f"Made by `make topologies` of docker/topologies/{name}.toml and config/stages/{name}.toml: change those.",
        "",
        "On one engine:",
        "  export COUPON_JWT_SECRET=$(openssl rand -base64 48)",
        f"  docker compose -p coupon-{name} -f {file} up -d --wait",
    ]
    if len([host for host in topology.hosts if host.parts]) > 1:
        variables = " ".join(f"{host_variable(host.name)}=..." for host in topology.hosts if host.parts)
        lines += [
            "",
            "On real hosts, in a network of their own: on each of them PUBLISH_ON=0.0.0.0, the addresses of all,",
            f"  {variables}",
            "the same COUPON_JWT_SECRET, and the parts of that host:",
            *(f"  {host.name}: docker compose -p coupon-{name} -f {file} up -d {parts_of(host)}" for host in topology.hosts if host.parts),
        ]
    lines += [
        "",
        "The database's password is the local stack's, and nothing is encrypted: for measuring. Production: config/production.example.toml.",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def parts_of(host: Host) -> str:
    return " ".join(part.name for part in host.parts)


def container(topology: Topology, part: Part) -> dict[str, Any]:
    made = settings(topology, part, Containers())
    described: dict[str, Any] = {}
    if part.kind in IMAGES:
        described["image"] = IMAGES[part.kind]
    else:
        described["image"] = f"coupon-svc:{service_version()}"
        described["build"] = {"context": "../..", "dockerfile": "docker/Dockerfile"}
    described |= command(part, made)
    environment = environment_of(part, made)
    if environment:
        described["environment"] = environment
    published = [port for port in (part.port, part.ops_port, part.controller_port if is_clustered(topology, part) else 0) if port]
    described["ports"] = [f"${{PUBLISH_ON:-127.0.0.1}}:{port}:{port}" for port in published]
    volumes = volumes_of(part)
    if volumes:
        described["volumes"] = volumes
    if part.kind == "node-exporter":
        # Which file systems there are is asked of the host's first process.
        described["pid"] = "host"
    described["mem_limit"] = f"{part.memory_mib}m"
    # No swap besides: a part that swaps would be slow where it should be seen to be too large.
    described["memswap_limit"] = f"{part.memory_mib}m"
    described["restart"] = "unless-stopped"
    if part.kind in ("api", "consumer", "mysql", "kafka"):
        # The service has 20 s to end in order, a database what it needs to flush.
        described["stop_grace_period"] = "30s"
    if part.kind in ("api", "nginx", "redis", "kafka"):
        described["ulimits"] = {"nofile": 65536}
    needed = [other.name for other in topology.of_kind(*NEEDS.get(part.kind, ())) if other.host == part.host]
    if needed:
        described["depends_on"] = {name: {"condition": "service_healthy"} for name in needed}
    check = healthcheck(part)
    if check:
        described["healthcheck"] = check
    described["labels"] = {"coupon.host": part.host}
    return described


def is_clustered(topology: Topology, part: Part) -> bool:
    return part.kind == "kafka" and len(topology.of_kind("kafka")) > 1


def service_version() -> str:
    return str(tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"])


def command(part: Part, made: Settings) -> dict[str, Any]:
    # The image makes the broker's file of its environment, where the heap is too.
    if part.kind == "kafka":
        return {}
    if not made.files:
        words = PROGRAMS.get(part.kind, []) + made.arguments
        return {"command": words} if words else {}
    place = Containers()
    files = [word for name, text in made.files.items() for word in (place.file(part, name), OTHER_DOLLAR.sub("$$", text))]
    return {
        "entrypoint": ["sh", "-c", WRITE_FILES, "start", *files, "--"],
        "command": PROGRAMS[part.kind] + made.arguments,
    }


def environment_of(part: Part, made: Settings) -> dict[str, str]:
    if part.kind == "kafka":
        named = {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in made.environment.items()}
        return {"CLUSTER_ID": CLUSTER_ID, "KAFKA_HEAP_OPTS": " ".join(made.arguments)} | named
    if part.kind == "mysql":
        return {"MYSQL_ALLOW_EMPTY_PASSWORD": "yes", "MYSQL_DATABASE": "coupon", "MYSQL_USER": "coupon", "MYSQL_PASSWORD": "coupon"}
    if part.kind == "api":
        secret = "${COUPON_JWT_SECRET:?set it, for instance to the output of: openssl rand -base64 48}"
        return made.environment | {"COUPON__JWT__HS256_SECRET": secret}
    if part.kind == "grafana":
        return made.environment | {"GF_SECURITY_ADMIN_PASSWORD": "${GRAFANA_PASSWORD:-admin}"}
    return made.environment


def volumes_of(part: Part) -> list[str]:
    volumes = []
    if part.kind == "kafka":
        volumes.append("../kafka/answers.sh:/project/docker/kafka/answers.sh:ro")
    if part.kind == "mysql":
        volumes.append("../mysql/coupon.cnf:/etc/mysql/conf.d/coupon.cnf:ro")
        volumes.append("../mysql/grants.sql:/docker-entrypoint-initdb.d/grants.sql:ro")
    if part.kind in ("prometheus", "grafana"):
        volumes.append("../../dashboards:/project/dashboards:ro")
    if part.kind == "node-exporter":
        volumes.append("/:/host:ro,rslave")
    if part.kind in DATA:
        volumes.append(f"{part.name}:{DATA[part.kind]}")
    return volumes


def healthcheck(part: Part) -> dict[str, Any]:
    """Asks the part itself. None where the image has nothing to ask with."""
    tests: dict[str, list[str]] = {
        "redis": ["CMD", "redis-cli", "-p", str(part.port), "ping"],
        "sentinel": ["CMD", "redis-cli", "-p", str(part.port), "ping"],
        # Java would take seconds of CPU for each question.
        "kafka": ["CMD", "bash", "/project/docker/kafka/answers.sh", "127.0.0.1", str(part.port)],
        # Over TCP: the image's first, temporary server listens on its socket only.
        "mysql": [
            *("CMD", "mysql", "--protocol=tcp", "--host=127.0.0.1", f"--port={part.port}"),
            *("--user=coupon", "--password=coupon", "--execute=SELECT 1", "coupon"),
        ],
        "nginx": ["CMD", "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{part.port}"],
        "api": ready(part.ops_port),
        "consumer": ready(part.ops_port),
        "prometheus": ["CMD", "wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{part.port}/-/ready"],
        "grafana": ["CMD", "wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{part.port}/api/health"],
    }
    if part.kind not in tests:
        return {}
    return {"test": tests[part.kind], "interval": "5s", "timeout": "5s", "retries": 24, "start_period": "30s"}


def ready(port: int) -> list[str]:
    ask = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"
    return ["CMD", "bash", "-c", ask]


PLAIN = re.compile(r"-{0,2}[A-Za-z/]([A-Za-z0-9_./=:-]*[A-Za-z0-9_./=-])?")
WORDS_WITH_A_MEANING = {"yes", "no", "true", "false", "on", "off", "null", "y", "n"}


def scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if PLAIN.fullmatch(text) and text.lower() not in WORDS_WITH_A_MEANING:
        return text
    return "'" + text.replace("'", "''") + "'"


def yaml(value: dict[str, Any] | list[Any], indent: int = 0) -> list[str]:
    """The few forms of YAML that a compose file needs."""
    lines = []
    space = " " * indent
    pairs = [(f"{key}:", item) for key, item in value.items()] if isinstance(value, dict) else [("-", item) for item in value]
    for lead, item in pairs:
        if isinstance(item, (dict, list)):
            lines += [f"{space}{lead}", *yaml(item, indent + 2)]
        elif isinstance(item, str) and "\n" in item:
            lines += [f"{space}{lead} |", *(f"{space}  {line}".rstrip() for line in item.removesuffix("\n").split("\n"))]
        else:
            lines.append(f"{space}{lead} {scalar(item)}".rstrip())
    return lines
