#!/usr/bin/env bash
# The main job as a crowd does it: USERS users, connected and waiting, are let go at one instant for STOCK coupons, one request
# each, against a running service. Prints what they were answered and how fast, then has the service's own audit check the books.
# Exit 0 only when exactly min(STOCK, USERS) were accepted, everybody else was told SOLD_OUT, and the audit is clean.
#
#   BASE_URLS=http://127.0.0.1:8080   one API or several (comma separated); users are spread over them in turn
#   USERS=10000 STOCK=1000            the crowd and the stock
#   IDENTITY=header                   or jwt, then JWT_SECRET (HS256; JWT_ISSUER and JWT_AUDIENCE where checked)
#   CONFIG="FILE..."                  the service's --config files, for the audit
#   PIDS="PID..."                     processes whose CPU seconds are told (default: every coupon-svc on this machine)
#   CONNECT_SECONDS                   how long before the start the users begin to connect (default grows with USERS)
#   COUPON_SVC=target/release/coupon-svc   KIND=FIRST_COME   OUT=.burst
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

export BASE_URLS=${BASE_URLS:-http://127.0.0.1:8080}
export USERS=${USERS:-10000} STOCK=${STOCK:-1000}
export IDENTITY=${IDENTITY:-header} KIND=${KIND:-FIRST_COME}
export CONNECT_SECONDS=${CONNECT_SECONDS:-$((6 + USERS / 1000))}
COUPON_ID=$(cat /proc/sys/kernel/random/uuid)
RUN_ID=burst-${COUPON_ID:0:8}
OUT=${OUT:-.burst}
RESULT_FILE=$OUT/$RUN_ID.env
export COUPON_ID RUN_ID RESULT_FILE
service=${COUPON_SVC:-target/release/coupon-svc}
outcomes=$OUT/$RUN_ID.outcomes
K6_VERSION=v1.8.1

die() {
    printf 'burst: %s\n' "$*" >&2
    exit 1
}

find_k6() {
    K6=$(command -v k6 || true)
    [[ -n $K6 ]] && return
    K6=$HOME/go/bin/k6
    [[ -x $K6 ]] && return
    command -v go >/dev/null || die "k6 is not installed, and there is no go to install it with: see https://grafana.com/docs/k6/latest/set-up/install-k6/"
    echo "burst: installing k6 $K6_VERSION with go (once, a few minutes)"
    GOBIN=$HOME/go/bin nice go install "go.k6.io/k6@$K6_VERSION" 2>&1 | grep -v '^go: downloading' || true
    [[ -x $K6 ]] || die "k6 could not be installed"
}

cpu_seconds() { # pid; nothing when it is gone
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # The name in the second field may hold spaces; the times are fields 14 and 15.
    awk -v hertz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hertz }' <<<"${stat##*) }"
}

number_in() { # name, JSON
    { grep -oE "\"$1\" *: *-?[0-9]+" <<<"$2" || true; } | head -n 1 | { grep -oE -- '-?[0-9]+$' || true; }
}

# The books are complete once nothing accepted is unwritten; until then the audit is asked again, for 30 s at most.
run_audit() {
    local flags=() file deadline=$((SECONDS + 30))
    for file in ${CONFIG:-}; do flags+=(--config "$file"); done
    while :; do
        audit_status=0
        audit_json=$("$service" audit --coupon "$COUPON_ID" --json "${flags[@]}" 2>"$OUT/$RUN_ID.audit.log") || audit_status=$?
        unwritten=$(number_in unwritten "$audit_json")
        if [[ $unwritten == 0 ]] || ((SECONDS >= deadline)); then return; fi
        sleep 0.5
    done
}

[[ $IDENTITY == header || $IDENTITY == jwt ]] || die "IDENTITY is '$IDENTITY'; it must be header or jwt"
[[ $IDENTITY != jwt || -n ${JWT_SECRET:-} ]] || die "IDENTITY=jwt needs JWT_SECRET"
[[ -x $service ]] || die "there is no $service for the audit: run 'cargo build --release' first, or set COUPON_SVC"
ulimit -n "$(ulimit -Hn)" || true
(($(ulimit -n) >= USERS + 256)) || die "$USERS users need $((USERS + 256)) open files, and the limit is $(ulimit -n): raise it, or set USERS lower"
find_k6
mkdir -p "$OUT"

PIDS=${PIDS:-$(pgrep -x coupon-svc || true)}
declare -A cpu_before=() cpu_command=()
for pid in $PIDS; do
    cpu_before[$pid]=$(cpu_seconds "$pid")
    cpu_command[$pid]=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-60 || true)
done

echo "burst: $USERS users for $STOCK coupons at $BASE_URLS; all connect first, $CONNECT_SECONDS s, then everybody at once"
: >"$outcomes"
K6_NO_USAGE_REPORT=true "$K6" run --quiet --address '' --log-format raw --console-output "$outcomes" loadtest/burst.js ||
    die "k6 failed (see above)"
[[ -s $RESULT_FILE ]] || die "k6 left no result"
# shellcheck disable=SC1090 # numbers written by burst.js
source "$RESULT_FILE"

cpu_lines=()
for pid in $PIDS; do
    after=$(cpu_seconds "$pid")
    if [[ -z $after || -z ${cpu_before[$pid]} ]]; then
        cpu_lines+=("gone      pid $pid")
    else
        cpu_lines+=("$(awk -v a="$after" -v b="${cpu_before[$pid]}" 'BEGIN { printf "%6.2f s", a - b }')  pid $pid  ${cpu_command[$pid]}")
    fi
done

run_audit
issued=$(number_in issued "$audit_json")
last_issued_ms=$(number_in last_issued_at_ms "$audit_json")
until_issued='not known'
if [[ -n $last_issued_ms ]]; then until_issued="$((last_issued_ms - T0_MS)) ms"; fi
expected=$((STOCK < USERS ? STOCK : USERS))
answered=$((N_ACCEPTED + N_ALREADY_ISSUED + N_SOLD_OUT + N_OTHER))

row() { printf '  %-34s %s\n' "$1" "$2"; }
printf '\ncoupon %s\n' "$COUPON_ID"
row "ACCEPTED" "$N_ACCEPTED of $expected"
row "ALREADY_ISSUED" "$N_ALREADY_ISSUED"
row "SOLD_OUT" "$N_SOLD_OUT"
row "any other outcome" "$N_OTHER"
if [[ -s $outcomes ]]; then
    sed -n 's/^OUTCOME //p' "$outcomes" | sort | uniq -c | sort -rn | while read -r times word; do row "    $word" "$times"; done
fi
row "answer to one request" "p50 $ANSWER_P50  p95 $ANSWER_P95  p99 $ANSWER_P99  max $ANSWER_MAX ms"
row "from T0 to the user's answer" "p50 $SINCE_T0_P50  p95 $SINCE_T0_P95  p99 $SINCE_T0_P99  max $SINCE_T0_MAX ms"
row "from T0 to the last answer" "$SINCE_T0_MAX ms"
row "from T0 to the last one ISSUED" "$until_issued"
row "audit" "exit $audit_status, issued ${issued:-?}, unwritten ${unwritten:-?}, violations $({ grep -oE '"violations" *: *[0-9]+' <<<"$audit_json" || echo '?'; } | grep -oE '[0-9?]+$')"
if ((${#cpu_lines[@]})); then
    echo "  CPU seconds during the run"
    printf '    %s\n' "${cpu_lines[@]}"
fi
if ((N_LATE + N_UNCONNECTED + N_RECONNECTED)); then
    row "not waiting at T0" "$N_LATE connected too late, $N_UNCONNECTED failed to connect, $N_RECONNECTED had to connect again"
fi

faults=()
((answered == USERS)) || faults+=("$answered of $USERS users were answered or failed; the rest is missing")
((N_ACCEPTED == expected)) || faults+=("$N_ACCEPTED were accepted instead of $expected")
((N_ACCEPTED + N_SOLD_OUT == answered)) || faults+=("$((answered - N_ACCEPTED - N_SOLD_OUT)) got something else than ACCEPTED or SOLD_OUT")
((audit_status == 0)) || faults+=("the audit ended with exit code $audit_status")
[[ $unwritten == 0 ]] || faults+=("the audit still finds ${unwritten:-an unknown number of} accepted unwritten after 30 s")
if ((${#faults[@]})); then
    printf '\nFAILED\n'
    printf '  - %s\n' "${faults[@]}"
    if ((audit_status)); then printf '%s\n' "$audit_json" | head -c 2000; tail -n 5 "$OUT/$RUN_ID.audit.log"; fi
    exit 1
fi
printf '\nPASSED: exactly %s of %s users have a coupon, everybody else was told so, and the books agree\n' "$expected" "$USERS"
