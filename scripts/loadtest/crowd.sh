# shellcheck shell=bash
# Lets the crowd go and checks the books afterwards. Sourced, never run.

progress_pid=''

# What the caller asked for, to be repeated: no secrets, no addresses with passwords.
command_line_given() {
    local name words=()
    for name in SCENARIO STACK APIS CONSUMERS USERS STOCK OTHER_STOCK COUPONS RATE DURATION REPEATS TIME_SCALE THINK_SECONDS PATIENCE_SECONDS \
        CONNECT_SECONDS CEILING IDENTITY CONFIG DB KAFKA_BROKERS $(compgen -e | grep '^COUPON__' | grep -vE 'SECRET|PASSWORD|URL'); do
        if [[ -n ${!name:-} ]]; then words+=("$name=${!name@Q}"); fi
    done
    # Quotes only where they are needed.
    printf 'make loadtest %s\n' "${words[*]}" | sed -E "s/='([A-Za-z0-9_.,:\/-]+)'/=\1/g"
}

run_crowd() { # name, 'k6' of the measured crowd
    local name=${1:-k6} status=0
    K6_NO_USAGE_REPORT=true K6_WEB_DASHBOARD=true K6_WEB_DASHBOARD_PORT=-1 K6_WEB_DASHBOARD_PERIOD=1s \
        K6_WEB_DASHBOARD_EXPORT=$OUT/$name.html K6_PROMETHEUS_RW_SERVER_URL=$PROMETHEUS_URL/api/v1/write \
        K6_PROMETHEUS_RW_PUSH_INTERVAL=500ms K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM=true \
        start_process "$name" "$K6" run --quiet --address '' --out experimental-prometheus-rw --log-format raw \
        --console-output "$OUT/$name-outcomes.txt" "loadtest/$SCENARIO.js"
    "$PYTHON" loadtest/report/progress.py "$PROMETHEUS_URL" "${started_pids[$name]}" &
    progress_pid=$!
    wait "${started_pids[$name]}" || status=$?
    wait "$progress_pid" || true
    progress_pid=''
    if ((status != 0)) || [[ ! -s $RESULT_FILE ]]; then
        tail -n 20 "$OUT/logs/$name.log" >&2
        die "k6 failed with exit code $status (see above)"
    fi
}

# How fast the crowd itself is here: the same one, at a server of the same library that checks the token and says yes.
run_ceiling() {
    local result=$RESULT_FILE urls=$BASE_URLS
    start_process constant target/release/coupon-bench --constant "$CEILING_PORT"
    wait_for_page constant "http://127.0.0.1:$CEILING_PORT/api/v1/coupons"
    say "the crowd at a constant answer first"
    RESULT_FILE=$OUT/ceiling.json BASE_URLS=http://127.0.0.1:$CEILING_PORT
    run_crowd ceiling
    RESULT_FILE=$result BASE_URLS=$urls
    stop_processes constant
}

# A crowd that is interrupted has nothing to finish.
abandon_crowd() {
    local pid
    for pid in ${started_pids[k6]:-} ${started_pids[ceiling]:-} ${progress_pid:-}; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

audit_crowd() {
    local flags=("${service_flags[@]}")
    # One coupon is audited alone; of many coupons the whole journal is read.
    if [[ $SCENARIO != mixed ]]; then flags+=(--coupon "$COUPON_ID"); fi
    say "the crowd has its answers; waiting until everything is written, then the audit"
    run_audit "$service" "${AUDIT_SECONDS:-120}" "$OUT/logs/audit.log" "${flags[@]}"
    printf '%s\n' "$audit_json" >"$OUT/audit.json"
}
