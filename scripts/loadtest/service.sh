# shellcheck shell=bash
# Brings up what a load test needs of the service, on embedded parts or on the local stack. Sourced, never run.

# The service's flags for every call: configuration files, the run's own last.
service_flags=()
base_urls=()
# What Prometheus asks: "name address".
ops_targets=()

api_port() { echo $((PORT + 1 + $1)); }
ops_port() { echo $((PORT + 40 + $1)); }

write_service_config() {
    {
        echo "# What the load test changes; the secret is in the environment."
        echo "parts = \"$STACK\""
        echo "[api]"
        echo "identity = \"$IDENTITY\""
        if [[ $STACK == embedded ]]; then
            printf '[embedded]\ndata_dir = "%s"\n' "$OUT/data"
        else
            printf '[redis]\nurl = "redis://127.0.0.1:%s"\n' "$(port_of redis)"
            printf '[kafka]\nbrokers = "127.0.0.1:%s"\n' "$(port_of kafka)"
            printf '[mysql]\nurl = "mysql://coupon:coupon@127.0.0.1:%s/coupon"\n' "$(port_of mysql)"
        fi
    } >"$OUT/service.toml"
    service_flags=()
    if [[ $STACK == distributed ]]; then service_flags+=(--config config/stack.toml); fi
    local file
    for file in ${CONFIG:-}; do service_flags+=(--config "$file"); done
    service_flags+=(--config "$OUT/service.toml")
}

# Ports and processes of the local stack, as scripts/stack.sh has them. In a subshell: its names are its own.
stack_library() { # function, arguments...
    # shellcheck source=scripts/stack/lib.sh
    (source scripts/stack/lib.sh && "$@")
}
port_of() { stack_library port_of "$1"; }

start_stack() {
    STACK_STARTED_FILE=$OUT/stack-started scripts/stack.sh up || die "the local stack did not start"
    local part pid
    while read -r part; do
        pid=$(stack_library own_pid "$part")
        pid=${pid:-$(stack_library port_pid "$(port_of "$part")")}
        if [[ -n $pid && -r /proc/$pid/stat ]]; then
            sample "$part" "$pid"
        else
            say "$part runs where its CPU time and memory cannot be seen"
        fi
    done < <(stack_library wanted_parts)
}

# Versions of the servers in use; others may run on the machine as well.
note_servers() {
    local status
    status=$(scripts/stack.sh status || true)
    head -n 1 <<<"$status"
    grep -E "^($(stack_library wanted_parts | paste -sd '|')) " <<<"$status" || true
}

stop_stack() {
    [[ -s $OUT/stack-started ]] || return 0
    if [[ ${KEEP_STACK:-0} == 1 ]]; then
        say "the stack keeps running; scripts/stack.sh down stops it"
    else
        local parts
        mapfile -t parts <"$OUT/stack-started"
        scripts/stack.sh down "${parts[@]}" || true
    fi
}

# One process of the service with listeners of its own.
start_role() { # name, role, api port or "", ops port
    local listen=()
    if [[ -n $3 ]]; then
        listen=("COUPON__API__LISTEN=127.0.0.1:$3")
        base_urls+=("http://127.0.0.1:$3")
    fi
    ops_targets+=("$1 127.0.0.1:$4")
    start_process "$1" env "${listen[@]}" "COUPON__OPS__LISTEN=127.0.0.1:$4" "$service" "${service_flags[@]}" --role "$2"
}

start_service() {
    local index target
    if [[ $STACK == embedded ]]; then
        start_role service all "$(api_port 0)" "$(ops_port 0)"
    else
        # The first one brings the tables up to date; the others would wait for it anyway.
        for ((index = 0; index < APIS; index++)); do start_role "api-$((index + 1))" api "$(api_port "$index")" "$(ops_port "$index")"; done
        for ((index = 0; index < CONSUMERS; index++)); do start_role "consumer-$((index + 1))" consumer "" "$(ops_port $((APIS + index)))"; done
    fi
    for target in "${ops_targets[@]}"; do wait_for_page "${target% *}" "http://${target#* }/readyz"; done
    BASE_URLS=$(IFS=,; echo "${base_urls[*]}")
    export BASE_URLS
}
