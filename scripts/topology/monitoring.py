"""How the monitoring is configured: who asks whom for what."""

from __future__ import annotations

import json

from model import Part, Topology
from place import Place, Settings, at, lines_of


def prometheus(topology: Topology, part: Part, place: Place) -> Settings:
    path = place.file(part, "prometheus.yml")
    arguments = [
        f"--config.file={path}",
        f"--storage.tsdb.path={place.data(part)}",
        f"--web.listen-address=0.0.0.0:{part.port}",
        # k6 tells it what the users saw.
        "--web.enable-remote-write-receiver",
        "--enable-feature=native-histograms",
    ]
    return Settings(arguments, files={"prometheus.yml": lines_of(scrapes(topology, place))})


def scrapes(topology: Topology, place: Place) -> list[str]:
    lines = ["global: {scrape_interval: 5s, scrape_timeout: 3s, evaluation_interval: 5s}"]
    server = topology.of_kind("prometheus")[0]
    files = ", ".join(place.mount(server, f"dashboards/{name}.yml") for name in ("rules", "alerts"))
    lines += [f"rule_files: [{files}]"]
    lines += ["scrape_configs:", "  - job_name: coupon-svc", "    static_configs:"]
    for part in topology.of_kind("api", "consumer"):
        target = f"{place.address(part)}:{part.ops_port}"
        labels = f"{{process: {part.name}, role: {part.kind}, host: {part.host}}}"
        lines.append(f"      - {{targets: [{json.dumps(target)}], labels: {labels}}}")
    for exporter in topology.of_kind("kafka-exporter", "mysqld-exporter", "nginx-exporter"):
        job = exporter.kind.removesuffix("-exporter")
        lines += [f"  - job_name: {job}", f"    static_configs: [{{targets: [{json.dumps(at(place, exporter))}]}}]"]
    nodes = topology.of_kind("node-exporter")
    if nodes:
        lines += ["  - job_name: node", "    static_configs:"]
        lines += [f"      - {{targets: [{json.dumps(at(place, node))}], labels: {{host: {node.host}}}}}" for node in nodes]
    for exporter in topology.of_kind("redis-exporter"):
        # One exporter asks every Redis: it is told which in the query.
        lines += ["  - job_name: redis", "    metrics_path: /scrape", "    static_configs:"]
        for server in topology.of_kind("redis"):
            lines.append(f"      - {{targets: [{json.dumps(f'redis://{at(place, server)}')}], labels: {{host: {server.host}}}}}")
        lines += [
            "    relabel_configs:",
            "      - {source_labels: [__address__], target_label: __param_target}",
            "      - {source_labels: [__param_target], target_label: instance}",
            f"      - {{target_label: __address__, replacement: {json.dumps(at(place, exporter))}}}",
        ]
    return lines


def grafana(topology: Topology, part: Part, place: Place) -> Settings:
    server = topology.of_kind("prometheus")[0]
    datasource = [
        "apiVersion: 1",
        "datasources:",
        "  - name: Prometheus",
        "    uid: prometheus",
        "    type: prometheus",
        "    access: proxy",
        "    isDefault: true",
        f"    url: {json.dumps(f'http://{at(place, server)}')}",
        # As scrape_interval above: by it Grafana chooses how far a rate looks back.
        "    jsonData: {timeInterval: 5s}",
    ]
    folder = json.dumps(place.mount(part, "dashboards/grafana"))
    dashboards = ["apiVersion: 1", "providers:", f"  - {{name: coupon-svc, type: file, options: {{path: {folder}}}}}"]
    environment = {
        "GF_SERVER_HTTP_PORT": str(part.port),
        "GF_PATHS_PROVISIONING": place.file(part, "provisioning"),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }
    return Settings(
        [],
        environment,
        {"provisioning/datasources/prometheus.yaml": lines_of(datasource), "provisioning/dashboards/files.yaml": lines_of(dashboards)},
    )


def redis_exporter(topology: Topology, part: Part, place: Place) -> Settings:
    return Settings([f"--redis.addr=redis://{at(place, topology.redis_primary)}", f"--web.listen-address=0.0.0.0:{part.port}"])


def kafka_exporter(topology: Topology, part: Part, place: Place) -> Settings:
    servers = [f"--kafka.server={at(place, broker)}" for broker in topology.of_kind("kafka")]
    return Settings([*servers, f"--web.listen-address=:{part.port}"])


def mysqld_exporter(topology: Topology, part: Part, place: Place) -> Settings:
    database = topology.of_kind("mysql")[0]
    # The replication statements that this version of the exporter knows are gone from MySQL.
    arguments = ["--no-collect.slave_status", f"--web.listen-address=:{part.port}"]
    return Settings(arguments, {"DATA_SOURCE_NAME": f"coupon:coupon@({at(place, database)})/"})


def nginx_exporter(topology: Topology, part: Part, place: Place) -> Settings:
    server = topology.of_kind("nginx")[0]
    return Settings([f"--nginx.scrape-uri=http://{place.address(server)}:{server.ops_port}/status", f"--web.listen-address=:{part.port}"])


def node_exporter(_topology: Topology, part: Part, place: Place) -> Settings:
    # Only what a panel or an alert looks at.
    collectors = [f"--collector.{name}" for name in ("cpu", "meminfo", "filesystem", "diskstats", "loadavg")]
    arguments = ["--collector.disable-defaults", *collectors, f"--path.rootfs={place.root()}", f"--web.listen-address=:{part.port}"]
    return Settings(arguments)
