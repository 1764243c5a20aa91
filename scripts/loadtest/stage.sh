# shellcheck shell=bash
# A crowd against a stage that is up: the sampler, the crowd on its host, the events meanwhile, the audit. Sourced, never run.
# shellcheck disable=SC2154 # shared with scripts/loadtest-stage.sh

sampler_pid='' crowd_pid='' events_pid=''
# What an event starts is not there at first.
absent=()

stage_command_given() {
    local name words=()
    for name in STAGE USERS ALL_SECONDS TIME_SCALE THINK_SECONDS COUPONS FAULTS EVENTS EVENT_SLOT EVENT_DOWN APIS CONSUMERS MONITORING STAGE_CROWD \
        STAGE_CPU STAGE_CORES $(compgen -e | grep '^COUPON__' | grep -vE 'SECRET|PASSWORD|URL'); do
        if [[ -n ${!name:-} ]]; then words+=("$name=${!name@Q}"); fi
    done
    printf 'make loadtest %s\n' "${words[*]}" | sed -E "s/='([A-Za-z0-9_.,:\/-]+)'/=\1/g"
}

# The windows of the crowd: first the whole time in which all users are there, then one for each event.
plan_events() {
    local event index=0 seen=' '
    local -a words
    read -ra words <<<"$EVENTS"
    WINDOWS=''
    for event in "${words[@]}"; do
        [[ $event =~ ^(kill|stop|start):[a-z0-9-]+$ ]] || die "EVENTS has '$event'; it must be kill:, stop: or start: and a part or host"
        WINDOWS+=" $((EVENT_LEAD + index * EVENT_SLOT))-$((EVENT_LEAD + (index + 1) * EVENT_SLOT))"
        if [[ $event == start:* && $seen != *" ${event#*:} "* ]]; then absent+=("${event#*:}"); fi
        seen+="${event#*:} "
        index=$((index + 1))
    done
    if ((index > 0)); then ALL_SECONDS=$((EVENT_LEAD + index * EVENT_SLOT + 10)); fi
    ((EVENT_DOWN < EVENT_SLOT)) || die "EVENT_DOWN must be below EVENT_SLOT"
    WINDOWS="0-$ALL_SECONDS$WINDOWS"
    export WINDOWS ALL_SECONDS
}

sleep_until() { # seconds since the epoch
    sleep "$(awk -v at="$1" -v now="$EPOCHREALTIME" 'BEGIN { wait = at - now; print(wait > 0 ? wait : 0) }')"
}

# Waits until the crowd says when all of it is there, and then does one event after the other.
carry_out_events() {
    local all='' event index=0 at
    local -a words
    read -ra words <<<"$EVENTS"
    ((${#words[@]})) || return 0
    while [[ -z $all ]]; do
        sleep 0.5
        all=$(sed -n 's/^T0 [0-9]* ALL \([0-9]*\).*/\1/p' "$OUT/outcomes.txt" 2>/dev/null | head -n 1)
    done
    for event in "${words[@]}"; do
        at=$(awk -v all="$all" -v after=$((EVENT_LEAD + index * EVENT_SLOT)) 'BEGIN { printf "%.3f", all / 1000 + after }')
        sleep_until "$at"
        carry_out "${event%%:*}" "${event#*:}"
        if [[ $event == kill:* ]]; then
            sleep_until "$(awk -v at="$at" -v down="$EVENT_DOWN" 'BEGIN { printf "%.3f", at + down }')"
            # The next event does not wait for a part that is slow to come back.
            carry_out start "${event#*:}" &
        fi
        index=$((index + 1))
    done
    wait
}

carry_out() { # command, part or host
    local begun=$EPOCHREALTIME result=done
    scripts/stage.sh "$1" "$2" >>"$OUT/events.log" 2>&1 || result=FAILED
    printf '{"event": "%s", "at": %s, "until": %s, "result": "%s"}\n' "$1 $2" "$begun" "$EPOCHREALTIME" "$result" >>"$OUT/events.jsonl"
    say "$1 $2: $result"
}

run_against_stage() { # users
    local status=0
    export USERS=$1 COUPON_ID RUN_ID RESULT_FILE=$OUT/k6.json IDENTITY=jwt CONNECT_SECONDS=0 PROXY_REPEATS=0 PATIENCE_SECONDS=${PATIENCE_SECONDS:-30}
    COUPON_ID=$(cat /proc/sys/kernel/random/uuid)
    RUN_ID=$STAGE-${COUPON_ID:0:8}
    if grep -q ' nginx ' "$STATE/plan/parts"; then PROXY_REPEATS=1; fi
    python3 scripts/stage/sampler.py "$STATE" "$OUT/samples.jsonl" &
    sampler_pid=$!
    say "$USERS users; the crowd is made"
    # In an environment of its own: the service's settings are none of the crowd's.
    (
        set -a
        # shellcheck source=/dev/null
        source "$STATE/addresses.env"
        JWT_SECRET=$(<"$STATE/jwt-secret")
        # Less often than by default: its heap is large and lasts.
        GOGC=${GOGC:-200} K6_NO_USAGE_REPORT=true
        set +a
        exec scripts/stage.sh exec load "$K6" run --quiet --address '' --log-format raw --console-output "$OUT/outcomes.txt" loadtest/ramp.js
    ) >"$OUT/k6.log" 2>&1 </dev/null &
    crowd_pid=$!
    echo "$crowd_pid" >"$STATE/run/k6.pid"
    carry_out_events &
    events_pid=$!
    wait "$crowd_pid" || status=$?
    rm -f "$STATE/run/k6.pid"
    crowd_pid=''
    if ((status != 0)) || [[ ! -s $OUT/k6.json ]]; then
        tail -n 20 "$OUT/k6.log" >&2
        die "k6 failed with exit code $status (see above)"
    fi
    audit_stage
    wait "$events_pid" || true
    events_pid=''
    kill "$sampler_pid"
    wait "$sampler_pid" || true
    sampler_pid=''
}

# Asks until everything accepted is written; notes how long that took after the crowd.
audit_stage() {
    local begun=$EPOCHREALTIME
    say "the crowd has its answers; waiting until everything is written, then the audit"
    set -a
    # shellcheck source=/dev/null
    source <(grep '^COUPON__' "$STATE/addresses.env")
    set +a
    run_audit "$COUPON_SVC" "${AUDIT_SECONDS:-180}" "$OUT/audit.log"
    printf '%s\n' "$audit_json" >"$OUT/audit.json"
    python3 scripts/stage/note.py "$OUT/run.json" "$STATE" "$audit_status" "$begun" "$K6" "$COUPON_SVC"
}

abandon_run() {
    local pid
    for pid in $events_pid $crowd_pid $sampler_pid; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
