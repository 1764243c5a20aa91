#!/usr/bin/env bash
# An upgrade under load, on one machine: two APIs behind nginx with docker/nginx/coupon-svc.conf, a consumer, the local stack. While users
# keep asking at a steady rate, one process after another is stopped (SIGTERM), started again and waited for until /readyz says so. Nobody
# tells nginx. Then every user is asked for again, and the audit checks the books.
# Exit code 0 only when no request was lost: each one was answered in words of the service, at most one in a hundred was told to ask again
# (503), and what was promised is what holds.
#
#   RATE=200                      requests a second, each of another user: half for a coupon with plenty, half for one that is sold out
#   CLIENTS=32                    connections of the users to nginx
#   SETTLE_SECONDS=3              between two restarts, and before the first and after the last
#   COUPON_SVC=target/release/coupon-svc   NEW_COUPON_SVC=   the build before and after; the same one by default
#   NGINX_PORT=18070 API_PORTS="18071 18072" OPS_PORTS="19171 19172 19173"
#   OUT=.upgrade                  logs of everything
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/loadtest/common.sh
source scripts/loadtest/common.sh

service=${COUPON_SVC:-target/release/coupon-svc}
new_service=${NEW_COUPON_SVC:-$service}
NGINX_PORT=${NGINX_PORT:-18070}
read -r -a api_ports <<<"${API_PORTS:-18071 18072}"
read -r -a ops_ports <<<"${OPS_PORTS:-19171 19172 19173}"
SETTLE_SECONDS=${SETTLE_SECONDS:-3}
OUT=${OUT:-.upgrade}
names=(api-1 api-2 consumer)
declare -A pid_of=()
nginx_pid='' crowd_pid=''

for binary in "$service" "$new_service"; do
    [[ -x $binary ]] || die "there is no $binary: run 'cargo build --release' first, or set COUPON_SVC"
done
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || die "nginx is not installed: apt-get install nginx-light"
command -v python3 >/dev/null || die "python3 is not installed"
for port in "$NGINX_PORT" "${api_ports[@]}" "${ops_ports[@]}"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken: choose others (see the head of $0)"; fi
done
ulimit -n "$(ulimit -Hn)" || true

# shellcheck source=scripts/stack/borrow.sh
source scripts/stack/borrow.sh

# Ends what this script started, and only that; then the stack's turn.
clean_up() {
    local status=$? name
    set +e
    for name in "${names[@]}"; do [[ -z ${pid_of[$name]:-} ]] || kill -TERM "${pid_of[$name]}" 2>/dev/null; done
    [[ -z $crowd_pid ]] || kill -KILL "$crowd_pid" 2>/dev/null
    [[ -z $nginx_pid ]] || kill -QUIT "$nginx_pid" 2>/dev/null
    wait "${pid_of[@]}" ${crowd_pid:+"$crowd_pid"} ${nginx_pid:+"$nginx_pid"} 2>/dev/null
    (exit "$status")
    finish
}
trap clean_up EXIT

millis() { echo $(($(date +%s%N) / 1000000)); }

# Starts one process of the service in the background. Sets pid_of[name].
launch() { # name, binary
    local number=${1#api-} role=api
    local -a settings=()
    if [[ $1 == consumer ]]; then
        role=consumer number=3
    else
        # Tokens, not headers: nginx lets no client name itself.
        settings=("COUPON__API__LISTEN=127.0.0.1:${api_ports[number - 1]}" COUPON__API__IDENTITY=jwt "COUPON__JWT__HS256_SECRET=$JWT_SECRET")
    fi
    env "${settings[@]}" "COUPON__OPS__LISTEN=127.0.0.1:${ops_ports[number - 1]}" \
        "$2" --config config/stack.toml --role "$role" >>"$OUT/$1.log" 2>&1 &
    pid_of[$1]=$!
}

ops_port_of() { # name
    case $1 in
        consumer) echo "${ops_ports[2]}" ;;
        *) echo "${ops_ports[${1#api-} - 1]}" ;;
    esac
}

wait_ready() { # name
    local deadline=$((SECONDS + 90))
    until curl -fsS -o /dev/null -m 2 "http://127.0.0.1:$(ops_port_of "$1")/readyz" 2>/dev/null; do
        kill -0 "${pid_of[$1]}" 2>/dev/null || die "$1 ended before it was ready, see $OUT/$1.log"
        ((SECONDS < deadline)) || die "$1 was not ready in time, see $OUT/$1.log"
        sleep 0.05
    done
}

# What an operator does with one process: stop it, put the new build in its place, start it, wait until it is ready.
upgrade() { # name
    local began stopped status=0
    began=$(millis)
    kill -TERM "${pid_of[$1]}"
    wait "${pid_of[$1]}" || status=$?
    stopped=$(millis)
    ((status == 0)) || die "$1 was asked to stop and ended with exit code $status, see $OUT/$1.log"
    launch "$1" "$new_service"
    wait_ready "$1"
    say "$1: stopped in $((stopped - began)) ms, ready $(($(millis) - stopped)) ms later"
}

# The example as it is, but for addresses and paths of this machine.
write_nginx_conf() {
    local number text expected
    text=$(sed -e "s|10\.0\.1\.11:8080|127.0.0.1:${api_ports[0]}|" -e "s|10\.0\.1\.12:8080|127.0.0.1:${api_ports[1]}|" \
        -e "s|listen 80 |listen 127.0.0.1:$NGINX_PORT |" -e "s|/var/log/nginx/coupon-svc.log|$OUT/access.log|" docker/nginx/coupon-svc.conf)
    for expected in "server 127.0.0.1:${api_ports[0]} " "server 127.0.0.1:${api_ports[1]} " "listen 127.0.0.1:$NGINX_PORT " "$OUT/access.log"; do
        grep -qF "$expected" <<<"$text" || die "docker/nginx/coupon-svc.conf changed: there is no place for '$expected'"
    done
    printf '%s\n' "$text" >"$OUT/coupon-svc.conf"
    {
        echo "daemon off; pid $OUT/nginx.pid; error_log $OUT/nginx.log warn; worker_processes 2; worker_rlimit_nofile 8192;"
        # Started by root, its workers would be another user, who may not write here.
        if ((EUID == 0)); then echo "user root;"; fi
        echo "events { worker_connections 2048; }"
        echo "http {"
        for number in client_body proxy fastcgi uwsgi scgi; do echo "    ${number}_temp_path $OUT/tmp;"; done
        echo "    include $OUT/coupon-svc.conf;"
        echo "}"
    } >"$OUT/nginx.conf"
    "$nginx" -q -t -c "$OUT/nginx.conf" -p "$OUT" 2>"$OUT/nginx.test" || die "nginx refuses its configuration: $(cat "$OUT/nginx.test")"
}

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
rm -f "$OUT"/*.log "$OUT/result"
JWT_SECRET=$(head -c 48 /dev/urandom | base64 -w 0)
export JWT_SECRET

STACK_STARTED_FILE=$started scripts/stack.sh up
for name in "${names[@]}"; do launch "$name" "$service"; done
for name in "${names[@]}"; do wait_ready "$name"; done
write_nginx_conf
"$nginx" -c "$OUT/nginx.conf" -p "$OUT" 2>>"$OUT/nginx.log" &
nginx_pid=$!

say "users ask at http://127.0.0.1:$NGINX_PORT, ${RATE:-200} a second"
RATE=${RATE:-200} CLIENTS=${CLIENTS:-32} python3 scripts/rolling-upgrade/crowd.py "127.0.0.1:$NGINX_PORT" "$OUT/result" &
crowd_pid=$!
sleep "$SETTLE_SECONDS"
# Readers first: the consumer, then the APIs.
for name in consumer api-1 api-2; do
    kill -0 "$crowd_pid" 2>/dev/null || die "the crowd ended early"
    upgrade "$name"
    sleep "$SETTLE_SECONDS"
done

# The crowd stops, asks once more for each of its users, and tells.
kill -TERM "$crowd_pid"
crowd_status=0
wait "$crowd_pid" || crowd_status=$?
crowd_pid=''
# nginx writes its log at least once a second.
sleep 1.2
passed_on=$(grep -cE 'upstream=[^ ]+, ' "$OUT/access.log" || true)
printf '  %-44s %s\n' "passed on by nginx to the other API" "$passed_on"

faults=0
((crowd_status == 0)) || faults=1
while read -r coupon; do
    run_audit "$new_service" 30 "$OUT/audit.log" --config config/stack.toml --coupon "$coupon"
    printf '  %-44s %s\n' "audit of $coupon" "exit $audit_status, unwritten ${unwritten:-?}"
    [[ $audit_status == 0 && $unwritten == 0 ]] || faults=1
done <"$OUT/result"
if ((faults)); then
    echo "FAILED: see $OUT"
    exit 1
fi
echo "PASSED: three processes were restarted, and no request was lost"
