#!/usr/bin/env bash
# A crowd against a service that is brought up for it: starts what is needed, lets the crowd go (k6), has the books audited, and leaves
# a report with plots in target/loadtest/. Stops exactly what it started. Exit code 1 when the audit is not clean or an answer cannot be.
#
#   SCENARIO=burst          burst, ramp, soak, repeat-storm, soldout-storm, restock or mixed
#   STACK=embedded          or distributed: the local stack (scripts/stack.sh), APIS=2 and CONSUMERS=2 processes
#   CONFIG="FILE..."        more --config files for the service; COUPON__SECTION__KEY in the environment counts too
#   IDENTITY=jwt            or header
#   PORT=18700              the first of the ports used: PORT to PORT+99
#   START_SECONDS=180       how long a process may take until it is ready
#   AUDIT_SECONDS=120       how long the drain may take until everything accepted is written
#   CEILING=1               of a burst: let the same crowd go first at a server that always gives the same answer, and compare
#   KEEP_STACK=1            leave the servers running that were started here
#   KEEP_DATA=1             keep the data of Prometheus and of embedded parts in the report's folder
#   COUPON_SVC=FILE         the service's binary (default: built now)
# The scenarios' own variables (USERS, STOCK, RATE, ...) are in loadtest/README.md.
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
# shellcheck source=scripts/loadtest/crowd.sh
source scripts/loadtest/crowd.sh

COMMAND=$(command_line_given)
export COMMAND
SCENARIO=${SCENARIO:-burst} STACK=${STACK:-embedded}
APIS=${APIS:-2} CONSUMERS=${CONSUMERS:-2}
PORT=${PORT:-18700}
CEILING=${CEILING:-0} CEILING_PORT=$((PORT + 97))
PROMETHEUS_PORT=$((PORT + 98)) SAMPLER_PORT=$((PORT + 99))
PROMETHEUS_URL=http://127.0.0.1:$PROMETHEUS_PORT
export IDENTITY=${IDENTITY:-jwt} PYTHONDONTWRITEBYTECODE=1

[[ -f loadtest/$SCENARIO.js ]] || die "SCENARIO is '$SCENARIO'; it must be one of $(cd loadtest && echo *.js | sed 's/\.js//g')"
[[ $STACK == embedded || $STACK == distributed ]] || die "STACK is '$STACK'; it must be embedded or distributed"
[[ $IDENTITY == header || $IDENTITY == jwt ]] || die "IDENTITY is '$IDENTITY'; it must be header or jwt"
((APIS >= 1 && CONSUMERS >= 1 && APIS + CONSUMERS <= 39)) || die "APIS and CONSUMERS must be at least 1, and 39 at most together"
[[ $CEILING != 1 || $SCENARIO == burst && $IDENTITY == jwt ]] || die "CEILING=1 is for SCENARIO=burst with IDENTITY=jwt"
# Users who are all there at a time; the scenarios with a rate have k6 workers instead.
case $SCENARIO in
    burst | ramp) export USERS=${USERS:-10000} ;;
    restock) export USERS=${USERS:-3000} ;;
    repeat-storm | soldout-storm) export USERS=${USERS:-1000} ;;
esac
need_open_files "${USERS:-8000}"

COUPON_ID=$(cat /proc/sys/kernel/random/uuid)
RUN_ID=$SCENARIO-${COUPON_ID:0:8}
OUT=target/loadtest/$SCENARIO-$STACK-$(date +%Y%m%d-%H%M%S)
RESULT_FILE=$OUT/k6.json
export COUPON_ID RUN_ID RESULT_FILE CONNECT_SECONDS=${CONNECT_SECONDS:-$((6 + ${USERS:-0} / 1000))}
mkdir -p "$OUT/logs" "$OUT/pids"

# A secret for this run alone. A stranger's tokens are as good as ours only where somebody gives the secret.
if [[ $IDENTITY == jwt ]]; then
    export JWT_SECRET=${JWT_SECRET:-$(head -c 48 /dev/urandom | base64 -w 0)}
    export COUPON__JWT__HS256_SECRET=$JWT_SECRET
fi

finish() {
    local status=$? name services=() others=()
    trap - EXIT INT TERM
    abandon_crowd
    for name in "${started_names[@]}"; do
        if [[ $name == prometheus || $name == sampler ]]; then others+=("$name"); else services+=("$name"); fi
    done
    stop_processes "${services[@]}"
    stop_processes "${others[@]}"
    stop_stack
    rm -rf "$OUT/pids" "$OUT/stack-started"
    if [[ ${KEEP_DATA:-0} != 1 ]]; then rm -rf "$OUT/data" "$OUT/prometheus"; fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

find_k6
find_prometheus
find_plotter
service=${COUPON_SVC:-target/release/coupon-svc}
if [[ -z ${COUPON_SVC:-} ]]; then cargo build --release; fi
[[ -x $service ]] || die "there is no $service"

if [[ $CEILING == 1 ]]; then cargo build --release --features bench --bin coupon-bench; fi
ports=("$CEILING_PORT" "$PROMETHEUS_PORT" "$SAMPLER_PORT")
for ((index = 0; index < APIS; index++)); do ports+=("$(api_port "$index")"); done
for ((index = 0; index < APIS + CONSUMERS; index++)); do ports+=("$(ops_port "$index")"); done
need_free_ports "${ports[@]}"

say "$SCENARIO on $STACK parts; the report will be in $OUT"
if [[ $STACK == distributed ]]; then start_stack; fi
write_service_config
start_service
start_prometheus
"$PYTHON" loadtest/report/machine.py "$service" "$K6" "$PROMETHEUS" >"$OUT/machine.json"
if [[ $STACK == distributed ]]; then note_servers >"$OUT/stack-status.txt"; fi

if [[ $CEILING == 1 ]]; then run_ceiling; fi
started_at=$(date +%s.%N)
run_crowd
audit_crowd
finished_at=$(date +%s.%N)
# A few more seconds, so that the plots show how it calmed down.
sleep 4
"$PLOTTER" loadtest/report/report.py "$OUT" --prometheus "$PROMETHEUS_URL" --scenario "$SCENARIO" --stack "$STACK" \
    --apis "$APIS" --consumers "$CONSUMERS" --from "$started_at" --to "$finished_at" --audit-status "$audit_status"
