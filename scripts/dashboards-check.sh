#!/usr/bin/env bash
# Whether the dashboards, rules and alerts can be told. Their own tests first; then Prometheus with the configuration of the stages watches the
# service, Redis, MySQL, nginx and this host under a load that makes every kind of answer, and is asked every query of every panel, every
# recording rule and every series that an alert looks at. One that returns nothing fails the check.
# The Kafka exporter and k6 are recorded (scripts/dashboards/live/recorded): the one is a container image only, the other takes minutes to build.
#
#   COUPON_SVC=target/release/coupon-svc   the service's binary
#   ASK_SECONDS=40                         how long a query may return nothing
#   PORT=18800                             the first of twenty ports
#   KEEP_STACK=1                           leave the local stack running if it was started here
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/loadtest/common.sh
source scripts/loadtest/common.sh
# shellcheck source=scripts/loadtest/processes.sh
source scripts/loadtest/processes.sh

service=${COUPON_SVC:-target/release/coupon-svc}
PORT=${PORT:-18800}
ASK_SECONDS=${ASK_SECONDS:-40}
OUT=$PWD/target/dashboards-check
live=scripts/dashboards/live
# Tables, a topic and a number of Redis of its own: the books of whoever uses the stack are none of this.
export DATABASE=coupon_dashboards TOPIC=coupon-dashboards-$$
export PYTHONDONTWRITEBYTECODE=1 PATH=$PATH:/usr/sbin
declare -A port_of=() ops_port_of=()

[[ -x $service ]] || die "there is no $service: run 'cargo build --release' first, or set COUPON_SVC"
command -v python3 >/dev/null || die "python3 is not installed"
rm -rf "$OUT"
mkdir -p "$OUT/logs" "$OUT/pids"

# shellcheck source=scripts/stack/borrow.sh
source scripts/stack/borrow.sh

# Ends what this script started, and only that; then the stack's turn.
clean_up() {
    local status=$?
    set +e
    stop_processes "${started_names[@]}"
    if [[ -n $made_database ]]; then
        scripts/mysql.sh mysql --execute="DROP DATABASE IF EXISTS $DATABASE" >"$OUT/logs/drop.log" 2>&1
        scripts/kafka.sh topics --delete --if-exists --topic "$TOPIC.*" >>"$OUT/logs/drop.log" 2>&1
    fi
    rm -rf "$OUT/prometheus/data"
    (exit "$status")
    finish
}
made_database=''
trap clean_up EXIT

install_programs() {
    local program packages=()
    for program in nginx prometheus prometheus-{redis,mysqld,nginx,node}-exporter; do
        command -v "$program" >/dev/null || packages+=("${program/%nginx/nginx-light}")
    done
    # In a shell of its own: the names of the stack's library are its own.
    (
        source scripts/stack/lib.sh
        source scripts/stack/install.sh
        mkdir -p "$CACHE"
        install_apt_packages "${packages[@]}"
    )
}

stack_port() { # part
    # shellcheck source=scripts/stack/lib.sh
    (source scripts/stack/lib.sh && port_of "$1")
}

# As the plan says, in its environment; the words behind are added to that.
start_part() { # name, program, VARIABLE=VALUE...
    local name=$1 program=$2 arguments environment
    shift 2
    mapfile -d '' -t arguments <"$OUT/$name/arguments"
    mapfile -d '' -t environment <"$OUT/$name/environment"
    start_process "$name" env "${environment[@]}" "$@" "$program" "${arguments[@]}"
}

start_service() {
    JWT_SECRET=$(head -c 48 /dev/urandom | base64 -w 0)
    export JWT_SECRET
    scripts/mysql.sh mysql --execute="DROP DATABASE IF EXISTS $DATABASE; CREATE DATABASE $DATABASE" >"$OUT/logs/create.log" 2>&1 ||
        die "the database could not be made: $(tail -n 3 "$OUT/logs/create.log")"
    made_database=1
    local role settings=(
        "COUPON__REDIS__URL=redis://127.0.0.1:$(stack_port redis)/7"
        "COUPON__MYSQL__URL=mysql://coupon:coupon@127.0.0.1:$(stack_port mysql)/$DATABASE" "COUPON__KAFKA__TOPIC=$TOPIC"
        "COUPON__KAFKA__DEAD_LETTER_TOPIC=$TOPIC-dlq" "COUPON__KAFKA__GROUP=$TOPIC"
        # Soon, and slow enough for the limiter to have something to do.
        COUPON__AUDIT__EVERY_MS=1000 COUPON__LIMITER__RATE=50
    )
    for role in api consumer; do start_part "$role" "$service" "${settings[@]}" "COUPON__JWT__HS256_SECRET=$JWT_SECRET"; done
    for role in api consumer; do wait_for_page "$role" "http://127.0.0.1:${ops_port_of[$role]}/readyz"; done
}

start_monitoring() {
    start_part nginx nginx
    wait_for_page nginx "http://127.0.0.1:${ops_port_of[nginx]}/status"
    local exporter
    for exporter in redis mysqld nginx node; do start_part "$exporter-exporter" "prometheus-$exporter-exporter"; done
    start_part prometheus prometheus
    wait_for_page prometheus "$url/-/ready"
    start_process recorded python3 "$live/recorded.py" "${port_of[kafka-exporter]}" "$url"
}

began=$SECONDS
install_programs
promtool check rules dashboards/rules.yml dashboards/alerts.yml >"$OUT/logs/rules.log" 2>&1 || die "$(<"$OUT/logs/rules.log")"
promtool test rules dashboards/tests/*.yml >"$OUT/logs/rules.log" 2>&1 || die "$(<"$OUT/logs/rules.log")"
say "$(grep -c 'name:' dashboards/tests/*.yml | awk -F : '{ sum += $2 } END { print sum }') cases of the rules and alerts hold"

STACK_STARTED_FILE=$started scripts/stack.sh up >"$OUT/logs/stack.log" || die "the local stack did not start: $(tail -n 5 "$OUT/logs/stack.log")"
while read -r name _ port ops_port; do
    port_of[$name]=$port ops_port_of[$name]=$ops_port
    need_free_ports "$port"
done < <(python3 "$live/parts.py" "$OUT" "$PORT" "$(stack_port redis)" "$(stack_port kafka)" "$(stack_port mysql)")
url=http://127.0.0.1:${port_of[prometheus]}
promtool check config "$OUT/prometheus/prometheus.yml" >"$OUT/logs/config.log" 2>&1 || die "$(<"$OUT/logs/config.log")"

start_service
start_monitoring
start_process users python3 "$live/users.py" "127.0.0.1:${port_of[nginx]}"
status=0
python3 "$live/ask.py" "$url" "$ASK_SECONDS" || status=$?
kill -0 "${started_pids[users]}" 2>/dev/null || die "the users ended early: $(tail -n 5 "$OUT/logs/users.log")"
kill -TERM "${started_pids[users]}"
users_status=0
wait "${started_pids[users]}" || users_status=$?
((users_status == 0)) || die "users got other answers than they should: $(tail -n 5 "$OUT/logs/users.log")"
((status == 0)) || die "what is named above cannot be told; logs are in $OUT/logs"
say "passed in $((SECONDS - began)) s"
