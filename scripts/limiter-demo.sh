#!/usr/bin/env bash
# An adaptive limit beside a fixed one, in the same conditions: an API, consumers that reach MySQL through a proxy (toxiproxy), a steady
# inflow of users (k6). The database runs at full speed, then at about a tenth of it, then at full speed again. What the consumers do is
# in target/limiter/: limiter.csv, limiter.png, and a table at the end. Each of the two runs has a topic, a database and a Redis database
# of its own. Starts what it needs, and stops exactly that.
#
#   RATE=1200               users a second, each wins one of COUPONS=16 coupons
#   FIXED=2700              the fixed limit, rows a second; the adaptive one has no ceiling
#   PHASES=15,30,30         seconds of each phase
#   CONSUMERS=2             processes, of two workers each
#   SLOW_LATENCY_MS=20 SLOW_KB=30   what makes it slow: on every answer of the database, and a second to it on each connection
#   PORT=18900              the first of ten ports
#   COUPON_SVC=target/release/coupon-svc   built when missing
#   KEEP_STACK=1            leave the servers running that were started here
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/loadtest/common.sh
source scripts/loadtest/common.sh
# shellcheck source=scripts/loadtest/processes.sh
source scripts/loadtest/processes.sh
# shellcheck source=scripts/loadtest/service.sh
source scripts/loadtest/service.sh
# shellcheck source=scripts/loadtest/prometheus.sh
source scripts/loadtest/prometheus.sh

export RATE=${RATE:-1200} COUPONS=${COUPONS:-16} SLOW_LATENCY_MS=${SLOW_LATENCY_MS:-20} SLOW_KB=${SLOW_KB:-30} WORKERS=2
FIXED=${FIXED:-2700} PHASES=${PHASES:-15,30,30} CONSUMERS=${CONSUMERS:-2} PORT=${PORT:-18900}
TOXIPROXY=${TOXIPROXY:-${COUPON_STACK_CACHE:-$HOME/.cache/coupon-stack}/toxiproxy-server}
OUT=target/limiter
service=${COUPON_SVC:-target/release/coupon-svc}
duration=$(awk -F , '{ print $1 + $2 + $3 }' <<<"$PHASES")
toxiproxy_url=http://127.0.0.1:$PORT
databases=() topics=()

((CONSUMERS >= 1 && CONSUMERS <= 5)) || die "CONSUMERS is $CONSUMERS; it must be from 1 to 5"
mkdir -p "$OUT/logs" "$OUT/pids"
rm -f "$OUT"/limiter.{csv,png}

finish() {
    local status=$? name
    trap - EXIT INT TERM
    stop_processes "${started_names[@]}"
    for name in "${databases[@]}"; do scripts/mysql.sh mysql --execute="DROP DATABASE IF EXISTS \`$name\`" 2>/dev/null || true; done
    for name in "${topics[@]}"; do
        scripts/kafka.sh topics --delete --if-exists --topic "$name" >/dev/null 2>&1 || true
        scripts/kafka.sh topics --delete --if-exists --topic "$name-dlq" >/dev/null 2>&1 || true
    done
    stop_stack
    rm -rf "$OUT/pids" "$OUT/stack-started"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

find_k6
find_plotter
need_open_files 8000
need_free_ports $(seq "$PORT" $((PORT + 9)))
WITH_CHAOS=1 scripts/stack.sh install
[[ -x $service ]] || cargo build --release
[[ -x $service ]] || die "there is no $service"
start_stack

start_process toxiproxy "$TOXIPROXY" -host 127.0.0.1 -port "$PORT"
wait_for_page toxiproxy "$toxiproxy_url/version"
mysql_proxy=127.0.0.1:$((PORT + 1))
curl -fsS -o /dev/null -X POST "$toxiproxy_url/proxies" \
    -d "{\"name\":\"mysql\",\"listen\":\"$mysql_proxy\",\"upstream\":\"127.0.0.1:$(port_of mysql)\",\"enabled\":true}" ||
    die "toxiproxy takes no proxy"

# One run under one limit. Sets nothing that outlives it but lines in the CSV.
run() { # fixed|adaptive, number of the Redis database
    local mode=$1 index names=(api) addresses=()
    local name=coupon_limiter_${mode}_$$
    local -a settings=("COUPON__REDIS__URL=redis://127.0.0.1:$(port_of redis)/$2" "COUPON__KAFKA__BROKERS=127.0.0.1:$(port_of kafka)"
        "COUPON__KAFKA__TOPIC=$name" "COUPON__KAFKA__DEAD_LETTER_TOPIC=$name-dlq" "COUPON__KAFKA__GROUP=$name"
        COUPON__API__IDENTITY=header COUPON__LOG__FILTER=warn COUPON__AUDIT__RECORDS_PER_SECOND=0)
    if [[ $mode == fixed ]]; then
        settings+=("COUPON__LIMITER__RATE=$FIXED" COUPON__LIMITER__ADAPTIVE=false)
    else
        settings+=(COUPON__LIMITER__RATE=0 COUPON__LIMITER__ADAPTIVE=true)
    fi
    databases+=("$name") topics+=("$name")
    scripts/mysql.sh mysql --execute="CREATE DATABASE \`$name\`"
    start_process api env "${settings[@]}" "COUPON__MYSQL__URL=mysql://coupon:coupon@127.0.0.1:$(port_of mysql)/$name" \
        "COUPON__API__LISTEN=127.0.0.1:$((PORT + 2))" "COUPON__OPS__LISTEN=127.0.0.1:$((PORT + 3))" \
        "$service" --config config/stack.toml --role api
    wait_for_page api "http://127.0.0.1:$((PORT + 3))/readyz"
    for ((index = 0; index < CONSUMERS; index++)); do
        addresses+=("127.0.0.1:$((PORT + 4 + index))")
        names+=("consumer-$index")
        start_process "consumer-$index" env "${settings[@]}" "COUPON__MYSQL__URL=mysql://coupon:coupon@$mysql_proxy/$name" \
            "COUPON__OPS__LISTEN=127.0.0.1:$((PORT + 4 + index))" "$service" --config config/stack.toml --role consumer
    done
    for ((index = 0; index < CONSUMERS; index++)); do wait_for_page "consumer-$index" "http://${addresses[index]}/readyz"; done

    say "$mode limit: $RATE users a second for $duration s"
    COUPON_ID=$(cat /proc/sys/kernel/random/uuid) RUN_ID=limiter RESULT_FILE=$OUT/k6-$mode.json IDENTITY=header \
        BASE_URLS=http://127.0.0.1:$((PORT + 2)) RUN_SECONDS=$((duration + 5)) K6_NO_USAGE_REPORT=true \
        start_process k6 "$K6" run --quiet --address '' scripts/limiter-demo/inflow.js
    sleep 5
    "$PYTHON" scripts/limiter-demo/watch.py "$mode" "$toxiproxy_url" "$PHASES" "$OUT/limiter.csv" "${addresses[@]}"
    wait "${started_pids[k6]}" || die "k6 failed, see $OUT/logs/k6.log"
    stop_processes "${names[@]}"
}

run fixed 14
run adaptive 15
"$PLOTTER" scripts/limiter-demo/plot.py "$OUT/limiter.csv" "$OUT/limiter.png"
say "the plot is $OUT/limiter.png"
