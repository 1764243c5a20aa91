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
# shellcheck source=scripts/loadtest/common.sh
source scripts/loadtest/common.sh

export BASE_URLS=${BASE_URLS:-http://127.0.0.1:8080}
export USERS=${USERS:-10000} STOCK=${STOCK:-1000}
export IDENTITY=${IDENTITY:-header} KIND=${KIND:-FIRST_COME}
export CONNECT_SECONDS=${CONNECT_SECONDS:-$((6 + USERS / 1000))}
# One request each, and what it says is what counts.
export PATIENCE_SECONDS=0
COUPON_ID=$(cat /proc/sys/kernel/random/uuid)
RUN_ID=burst-${COUPON_ID:0:8}
OUT=${OUT:-.burst}
RESULT_FILE=$OUT/$RUN_ID.json
export COUPON_ID RUN_ID RESULT_FILE
service=${COUPON_SVC:-target/release/coupon-svc}
outcomes=$OUT/$RUN_ID.outcomes

[[ $IDENTITY == header || $IDENTITY == jwt ]] || die "IDENTITY is '$IDENTITY'; it must be header or jwt"
[[ $IDENTITY != jwt || -n ${JWT_SECRET:-} ]] || die "IDENTITY=jwt needs JWT_SECRET"
[[ -x $service ]] || die "there is no $service for the audit: run 'cargo build --release' first, or set COUPON_SVC"
need_open_files "$USERS"
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
result=$(<"$RESULT_FILE")
in_result() { number_in "$1" "$result"; }
times_in_result() { echo "p50 $(in_result "$1_p50_ms")  p95 $(in_result "$1_p95_ms")  p99 $(in_result "$1_p99_ms")  max $(in_result "$1_max_ms") ms"; }
accepted=$(in_result answers_accepted) already_issued=$(in_result answers_already_issued) sold_out=$(in_result answers_sold_out)
other=0
for outcome in refused unavailable too_many_requests transport; do other=$((other + $(in_result "answers_$outcome"))); done
late=$(in_result late) unconnected=$(in_result unconnected) reconnected=$(in_result reconnected)

cpu_lines=()
for pid in $PIDS; do
    after=$(cpu_seconds "$pid")
    if [[ -z $after || -z ${cpu_before[$pid]} ]]; then
        cpu_lines+=("gone      pid $pid")
    else
        cpu_lines+=("$(awk -v a="$after" -v b="${cpu_before[$pid]}" 'BEGIN { printf "%6.2f s", a - b }')  pid $pid  ${cpu_command[$pid]}")
    fi
done

audit_flags=()
for file in ${CONFIG:-}; do audit_flags+=(--config "$file"); done
run_audit "$service" 30 "$OUT/$RUN_ID.audit.log" --coupon "$COUPON_ID" "${audit_flags[@]}"
issued=$(number_in issued "$audit_json")
last_issued_ms=$(number_in last_issued_at_ms "$audit_json")
until_issued='not known'
if [[ -n $last_issued_ms ]]; then until_issued="$((last_issued_ms - $(in_result t0_ms))) ms"; fi
expected=$((STOCK < USERS ? STOCK : USERS))
answered=$((accepted + already_issued + sold_out + other))

row() { printf '  %-34s %s\n' "$1" "$2"; }
printf '\ncoupon %s\n' "$COUPON_ID"
row "ACCEPTED" "$accepted of $expected"
row "ALREADY_ISSUED" "$already_issued"
row "SOLD_OUT" "$sold_out"
row "any other outcome" "$other"
if [[ -s $outcomes ]]; then
    sed -n 's/^OUTCOME //p' "$outcomes" | sort | uniq -c | sort -rn | while read -r times word; do row "    $word" "$times"; done
fi
row "answer to one request" "$(times_in_result answer)"
row "from T0 to the user's answer" "$(times_in_result since_t0)"
row "from T0 to the last answer" "$(in_result since_t0_max_ms) ms"
row "from T0 to the last one ISSUED" "$until_issued"
row "audit" "exit $audit_status, issued ${issued:-?}, unwritten ${unwritten:-?}, violations $({ grep -oE '"violations" *: *[0-9]+' <<<"$audit_json" || echo '?'; } | grep -oE '[0-9?]+$')"
if ((${#cpu_lines[@]})); then
    echo "  CPU seconds during the run"
    printf '    %s\n' "${cpu_lines[@]}"
fi
if ((late + unconnected + reconnected)); then
    row "not waiting at T0" "$late connected too late, $unconnected failed to connect, $reconnected had to connect again"
fi

faults=()
((answered == USERS)) || faults+=("$answered of $USERS users were answered or failed; the rest is missing")
((accepted == expected)) || faults+=("$accepted were accepted instead of $expected")
((accepted + sold_out == answered)) || faults+=("$((answered - accepted - sold_out)) got something else than ACCEPTED or SOLD_OUT")
((audit_status == 0)) || faults+=("the audit ended with exit code $audit_status")
[[ $unwritten == 0 ]] || faults+=("the audit still finds ${unwritten:-an unknown number of} accepted unwritten after 30 s")
if ((${#faults[@]})); then
    printf '\nFAILED\n'
    printf '  - %s\n' "${faults[@]}"
    if ((audit_status)); then printf '%s\n' "$audit_json" | head -c 2000; tail -n 5 "$OUT/$RUN_ID.audit.log"; fi
    exit 1
fi
printf '\nPASSED: exactly %s of %s users have a coupon, everybody else was told so, and the books agree\n' "$expected" "$USERS"
