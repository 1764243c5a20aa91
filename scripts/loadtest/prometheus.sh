# shellcheck shell=bash
# A Prometheus of the run's own: it asks the service and the sampler every second, and k6 tells it what the users saw. Sourced, never run.

find_prometheus() {
    PROMETHEUS=$(command -v prometheus || true)
    [[ -n $PROMETHEUS ]] && return
    [[ -r /etc/debian_version && $EUID == 0 ]] || die "prometheus is not installed: see https://prometheus.io/download/"
    say "installing prometheus with apt-get (once)"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; } >"$OUT/logs/apt.log" 2>&1 ||
        { tail -n 5 "$OUT/logs/apt.log" >&2; die "prometheus could not be installed"; }
    PROMETHEUS=$(command -v prometheus)
}

# matplotlib, in a folder of its own.
find_plotter() {
    local folder=target/loadtest/venv
    PYTHON=$(command -v python3) || die "python3 is not installed"
    PLOTTER=$folder/bin/python
    "$PLOTTER" -c 'import matplotlib' 2>/dev/null && return
    say "installing matplotlib into $folder (once)"
    { "$PYTHON" -m venv "$folder" && "$folder/bin/pip" install -q -r loadtest/report/requirements.txt; } >"$OUT/logs/pip.log" 2>&1 ||
        { tail -n 5 "$OUT/logs/pip.log" >&2; die "matplotlib could not be installed"; }
}

write_prometheus_config() {
    local target
    cat <<YAML
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: processes
    static_configs: [{targets: ['127.0.0.1:$SAMPLER_PORT']}]
  - job_name: coupon-svc
    static_configs:
YAML
    for target in "${ops_targets[@]}"; do
        echo "      - {targets: ['${target#* }'], labels: {process: '${target% *}'}}"
    done
}

start_prometheus() {
    start_process sampler "$PYTHON" loadtest/report/sampler.py "$SAMPLER_PORT" "$OUT/pids"
    write_prometheus_config >"$OUT/prometheus.yml"
    start_process prometheus "$PROMETHEUS" --config.file="$OUT/prometheus.yml" --storage.tsdb.path="$OUT/prometheus" \
        --web.listen-address="127.0.0.1:$PROMETHEUS_PORT" --web.enable-remote-write-receiver \
        --enable-feature=native-histograms --log.level=warn
    wait_for_page prometheus "$PROMETHEUS_URL/-/ready"
    wait_for_samples
}

# A freshly started Prometheus takes some seconds before it asks anybody.
wait_for_samples() {
    local deadline=$((SECONDS + 30)) targets=$((${#ops_targets[@]} + 1))
    until curl -fsS -m 2 "$PROMETHEUS_URL/api/v1/query?query=sum(up)" 2>/dev/null | grep -q "\"$targets\""; do
        ((SECONDS < deadline)) || die "Prometheus does not reach all $targets targets (see $OUT/logs/prometheus.log)"
        sleep 0.2
    done
}
