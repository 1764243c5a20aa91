# shellcheck shell=bash
# Lets the crowd go and checks the books afterwards. Sourced, never run.

progress_pid=''

# What the caller asked for, to be repeated: no secrets, no addresses with passwords.
command_line_given() {
    local name words=()
    for name in SCENARIO STACK APIS CONSUMERS USERS STOCK OTHER_STOCK COUPONS RATE DURATION REPEATS TIME_SCALE THINK_SECONDS PATIENCE_SECONDS \
        CONNECT_SECONDS IDENTITY CONFIG DB KAFKA_BROKERS $(compgen -e | grep '^COUPON__' | grep -vE 'SECRET|PASSWORD|URL'); do
        if [[ -n ${!name:-} ]]; then words+=("$name=${!name@Q}"); fi
    done
    # Quotes only where they are needed.
    printf 'make loadtest %s\n' "${words[*]}" | sed -E "s/='([A-Za-z0-9_.,:\/-]+)'/=\1/g"
}

run_crowd() {
    local status=0
    K6_NO_USAGE_REPORT=true K6_WEB_DASHBOARD=true K6_WEB_DASHBOARD_PORT=-1 K6_WEB_DASHBOARD_PERIOD=1s \
        K6_WEB_DASHBOARD_EXPORT=$OUT/k6.html K6_PROMETHEUS_RW_SERVER_URL=$PROMETHEUS_URL/api/v1/write \
        K6_PROMETHEUS_RW_PUSH_INTERVAL=500ms K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM=true \
        start_process k6 "$K6" run --quiet --address '' --out experimental-prometheus-rw --log-format raw \
        --console-output "$OUT/outcomes.txt" "loadtest/$SCENARIO.js"
    "$PYTHON" loadtest/report/progress.py "$PROMETHEUS_URL" "${started_pids[k6]}" &
    progress_pid=$!
    wait "${started_pids[k6]}" || status=$?
    wait "$progress_pid" || true
    progress_pid=''
    if ((status != 0)) || [[ ! -s $RESULT_FILE ]]; then
        tail -n 20 "$OUT/logs/k6.log" >&2
        die "k6 failed with exit code $status (see above)"
    fi
}

# A crowd that is interrupted has nothing to finish.
abandon_crowd() {
    local pid
    for pid in ${started_pids[k6]:-} ${progress_pid:-}; do
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
