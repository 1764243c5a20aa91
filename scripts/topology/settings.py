"""How each part is configured: one place for containers and for processes in namespaces.

Only addresses and folders differ between the two, so they are asked of a Place.
"""

from __future__ import annotations

import json
from typing import Any

import monitoring
from model import Part, Topology
from place import Place, Settings, at, lines_of

# The name under which the sentinels know the Redis that is the primary now.
SENTINEL_SET = "main"
OFFSETS_PARTITIONS = 5
# As the service says it; both names of the code, because the proxy does not know which call it was.
AWAY = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "code": "UNAVAILABLE",
    "result": "UNAVAILABLE",
    "detail": "not known yet: ask again",
    "trace_id": "$request_id",
}


def settings(topology: Topology, part: Part, place: Place) -> Settings:
    kinds = {
        "redis": redis,
        "sentinel": sentinel,
        "kafka": kafka,
        "mysql": mysql,
        "nginx": nginx,
        "api": service,
        "consumer": service,
        "prometheus": monitoring.prometheus,
        "grafana": monitoring.grafana,
        "redis-exporter": monitoring.redis_exporter,
        "kafka-exporter": monitoring.kafka_exporter,
        "mysqld-exporter": monitoring.mysqld_exporter,
        "nginx-exporter": monitoring.nginx_exporter,
        "node-exporter": monitoring.node_exporter,
    }
    return kinds[part.kind](topology, part, place)


def brokers(topology: Topology, place: Place) -> str:
    return ",".join(at(place, broker) for broker in topology.of_kind("kafka"))


def redis(topology: Topology, part: Part, place: Place) -> Settings:
    options = {
        "bind": "*",
        "protected-mode": "no",
        "port": str(part.port),
        "dir": place.data(part),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": f"{part.own_memory_mib}mb",
        # An evicted set would let more records through to the log; a full one is answered by the local gate.
        "maxmemory-policy": "noeviction",
        "maxclients": "10000",
        "set-proc-title": "no",
    }
    if len(topology.of_kind("redis")) > 1:
        # By the name the others use; without it a sentinel would learn an address of the container.
        options |= {"replica-announce-ip": place.address(part), "replica-announce-port": str(part.port)}
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    if part.replica_of:
        primary = topology.part(part.replica_of)
        arguments += ["--replicaof", place.address(primary), str(primary.port)]
    return Settings(arguments)


def sentinel(topology: Topology, part: Part, place: Place) -> Settings:
    primary = topology.redis_primary
    quorum = len(topology.of_kind("sentinel")) // 2 + 1
    lines = [
        f"port {part.port}",
        "protected-mode no",
        f"dir {place.data(part)}",
        # So that a process can be told by the file in its command line.
        "set-proc-title no",
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
        f"sentinel announce-ip {place.address(part)}",
        f"sentinel announce-port {part.port}",
        f"sentinel monitor {SENTINEL_SET} {place.address(primary)} {primary.port} {quorum}",
        # The service goes on without Redis, so a failover need not be hasty; but a short one keeps the log free of needless records.
        f"sentinel down-after-milliseconds {SENTINEL_SET} 3000",
        f"sentinel failover-timeout {SENTINEL_SET} 10000",
    ]
    return Settings([place.file(part, "sentinel.conf"), "--sentinel"], files={"sentinel.conf": lines_of(lines)})


def kafka(topology: Topology, part: Part, place: Place) -> Settings:
    """Environment: the server's properties, by their own names, and HEAP."""
    cluster = topology.of_kind("kafka")
    voters = ",".join(f"{other.number}@{place.address(other)}:{other.controller_port}" for other in cluster)
    if len(cluster) == 1:
        # Alone it talks to nobody but itself, on a port that nobody else needs.
        voters = f"{part.number}@localhost:{part.controller_port}"
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(part.number),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listeners": f"PLAINTEXT://:{part.port},CONTROLLER://:{part.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{at(place, part)}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": place.data(part),
        "auto.create.topics.enable": "false",
        # The promise rests on these three: what was acknowledged is kept.
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(topology.min_insync),
        "log.retention.ms": "-1",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "offsets.topic.num.partitions": str(OFFSETS_PARTITIONS),
        "offsets.topic.replication.factor": str(topology.replication),
        "transaction.state.log.num.partitions": str(OFFSETS_PARTITIONS),
        "transaction.state.log.replication.factor": str(topology.replication),
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
    # All of the heap at once: what does not fit shows at the start, not under load.
    heap = [f"-Xms{part.own_memory_mib}m", f"-Xmx{part.own_memory_mib}m"]
    text = lines_of([f"{key}={value}" for key, value in properties.items()])
    return Settings(heap, properties, {"server.properties": text})


def mysql(_topology: Topology, part: Part, _place: Place) -> Settings:
    # The rest is in docker/mysql/coupon.cnf, for every database of the project.
    return Settings(["--bind-address=0.0.0.0", f"--port={part.port}", f"--innodb-buffer-pool-size={part.own_memory_mib}M", "--mysqlx=OFF"])


def service(topology: Topology, part: Part, place: Place) -> Settings:
    """The service's configuration; the secret of the tokens is added where it runs."""
    database = topology.of_kind("mysql")[0]
    keys: dict[str, Any] = {
        "parts": "distributed",
        "ops.listen": f"0.0.0.0:{part.ops_port}",
        "redis.url": redis_url(topology, place),
        "kafka.brokers": brokers(topology, place),
        "kafka.partitions": topology.partitions,
        "kafka.replication_factor": topology.replication,
        "mysql.url": f"mysql://coupon:coupon@{at(place, database)}/coupon",
        "mysql.migrate_at_start": True,
        "log.format": "json",
    }
    if part.kind == "api":
        keys |= {"api.listen": f"0.0.0.0:{part.port}", "api.identity": "jwt"}
    for section, tuned in topology.tuning.items():
        keys |= {f"{section}.{key}": value for key, value in tuned.items()}
    return Settings(["--role", part.kind], {variable(key): text_of(value) for key, value in keys.items()})


def variable(key: str) -> str:
    return "COUPON__" + key.upper().replace(".", "__")


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def redis_url(topology: Topology, place: Place) -> str:
    sentinels = topology.of_kind("sentinel")
    if not sentinels:
        return f"redis://{at(place, topology.redis_primary)}"
    first, *others = [at(place, part) for part in sentinels]
    nodes = "".join(f"&node={other}" for other in others)
    return f"redis-sentinel://{first}/0?sentinelServiceName={SENTINEL_SET}{nodes}"


def nginx(topology: Topology, part: Part, place: Place) -> Settings:
    path = place.file(part, "nginx.conf")
    lines = [
        "daemon off;",
        "worker_processes auto;",
        "worker_rlimit_nofile 65536;",
        f"pid {place.data(part)}/nginx.pid;",
        "error_log stderr warn;",
        "events { worker_connections 32768; }",
        "http {",
        "    access_log off;",
        *(f"    {kind}_temp_path {place.data(part)}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
        "    upstream api {",
        "        least_conn;",
        # Never "down": under load a few slow connects would take every API away at once, and all users would be told 503. One that is
        # gone refuses, and the next is asked within the same request.
        *(f"        server {at(place, api)} max_fails=0;" for api in topology.of_kind("api")),
        # As many as a crowd has requests in flight: otherwise each of them is a new connection, and a local port for a minute.
        "        keepalive 8192;",
        "    }",
        "    server {",
        f"        listen {part.port} backlog=16384;",
        "        keepalive_requests 100000;",
        "        location / {",
        "            proxy_pass http://api;",
        "            proxy_http_version 1.1;",
        '            proxy_set_header Connection "";',
        # Asking again never costs anything, so a request may go to the other API also when the first one may have had it. A 503 is an
        # answer of the service with a Retry-After, and is passed on.
        "            proxy_next_upstream error timeout non_idempotent;",
        "            proxy_next_upstream_tries 2;",
        "            proxy_connect_timeout 1s;",
        "            proxy_read_timeout 5s;",
        # No API at hand is no answer: the promise for that is a 503 that says when to ask again.
        "            error_page 502 504 =503 @away;",
        "        }",
        "        location @away {",
        "            default_type application/problem+json;",
        "            add_header Retry-After 1 always;",
        f"            return 503 '{json.dumps(AWAY)}';",
        "        }",
        "    }",
        # On a port of its own: it is none of the crowd's business.
        "    server {",
        f"        listen {part.ops_port};",
        "        location = /status { stub_status; }",
        "        location / { return 404; }",
        "    }",
        "}",
    ]
    return Settings(["-c", path], files={"nginx.conf": lines_of(lines)})
