#!/usr/bin/env bash
# A deployment stage on one machine, of the same description as its compose file: a network namespace for each host, limits of memory for
# each part, and each host's share of the CPUs. Needs Linux with cgroup v1, and root.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# Apart from the local stack's: the two can run at a time.
STACK_STATE=${STAGE_STATE:-$(dirname "$HERE")/.stage}
STACK_WAIT_SECONDS=${STAGE_WAIT_SECONDS:-300}
STACK_STOP_SECONDS=${STAGE_STOP_SECONDS:-40}
DB=mysql
# shellcheck source=scripts/stack/lib.sh
source "$HERE/stack/lib.sh"
# shellcheck source=scripts/stack/tls.sh
source "$HERE/stack/tls.sh"
# shellcheck source=scripts/stack/install.sh
source "$HERE/stack/install.sh"
# shellcheck source=scripts/stack/servers.sh
source "$HERE/stack/servers.sh"
# shellcheck source=scripts/stage/hosts.sh
source "$HERE/stage/hosts.sh"
# shellcheck source=scripts/stage/parts.sh
source "$HERE/stage/parts.sh"

usage() {
    cat <<'USAGE'
usage: scripts/stage.sh COMMAND

  up STAGE               start a stage of docker/topologies/ with empty servers; prints its addresses when all parts are ready
  down                   end what `up` started; logs and data stay until the next `up`
  status                 one line for each part: pid, memory, limit; exit 1 unless all run
  stop PART|HOST...      ask parts to end, and wait for it; of a host all its parts
  kill PART|HOST...      end them by SIGKILL, as a host that is lost
  start PART|HOST...     start again what was stopped or killed; its data is as it was
  exec HOST COMMAND...   run a command on a host of the stage, for instance k6 on `load`
  plan STAGE             print which processes run where, with which limits

Variables:
  COUPON_SVC=FILE          the service's binary (default: built now)
  COUPON__SECTION__KEY     any key of the service; wins over the stage's, e.g. COUPON__LIMITER__RATE=0
  MONITORING=0             without the monitoring and its host: more CPU for the rest
  APIS=N, CONSUMERS=N      another number of hosts of these kinds than described
  STAGE_CORES=N            CPUs to share out (default: all of this machine)
  STAGE_CROWD=0.5          of these, for the host `load` while all are busy; the rest is the other hosts', by their vCPUs
  STAGE_CPU=weights        or fixed: no host has more than its share, even while others are idle
  STAGE_STATE=.stage       where pids, logs and data are; a folder named .stage
  STAGE_WAIT_SECONDS=300   how long a part may take until it is ready

STAGE_STATE/addresses.env has the addresses for a script (to be sourced), STAGE_STATE/jwt-secret the key of the tokens.
Grafana and the Kafka exporter run in containers only.
USAGE
}

plan_of() { # words for scripts/topology
    local options=(--cores "${STAGE_CORES:-$(nproc)}")
    if [[ ${MONITORING:-1} == 0 ]]; then options+=(--no-monitoring); fi
    if [[ -n ${APIS:-} ]]; then options+=(--apis "$APIS"); fi
    if [[ -n ${CONSUMERS:-} ]]; then options+=(--consumers "$CONSUMERS"); fi
    if [[ -n ${STAGE_CROWD:-} ]]; then options+=(--crowd "$STAGE_CROWD"); fi
    if [[ ${STAGE_CPU:-weights} == fixed ]]; then options+=(--fixed); fi
    python3 -B "$HERE/topology" "$@" "${options[@]}"
}

read_plan() {
    [[ -r $STATE/plan/parts ]] || die "no stage was started here"
    read_parts
    read_hosts
}

find_service() {
    SERVICE_PROGRAM=${COUPON_SVC:-$ROOT/target/release/coupon-svc}
    if [[ -z ${COUPON_SVC:-} ]]; then (cd "$ROOT" && cargo build --release); fi
    [[ -x $SERVICE_PROGRAM ]] || die "there is no $SERVICE_PROGRAM"
    SERVICE_PROGRAM=$(realpath "$SERVICE_PROGRAM")
}

# What is started again is what was started first, unless the caller says otherwise.
find_service_of_stage() {
    COUPON_SVC=${COUPON_SVC:-$(<"$STATE/service")}
    find_service
}

need_free_memory() {
    local part wanted=0 free
    for part in "${parts[@]}"; do wanted=$((wanted + part_memory[$part])); done
    free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    if ((wanted > free)); then say stage "the parts may take $wanted MiB together, and $free are free: what they use is less, but watch it"; fi
}

up() { # stage
    [[ ! -e $MADE ]] || die "a stage is up here: '$0 down' first"
    plan_of show "$1" >/dev/null || exit 1
    need_what_hosts_are_made_of
    find_service
    # A stage starts empty: the data of another one would be of other brokers.
    rm -rf "$STATE"
    mkdir -p "$STATE" "$RUN"
    echo "$SERVICE_PROGRAM" >"$STATE/service"
    plan_of plan "$1" "$STATE"
    read_plan
    (umask 077 && head -c 48 /dev/urandom | base64 -w 0 >"$STATE/jwt-secret")
    echo "JWT_SECRET_FILE=$STATE/jwt-secret" >>"$STATE/addresses.env"
    install_missing
    install_programs
    need_free_memory
    say stage "$1: while all are busy a host has $(<"$STATE/plan/factor") of its CPUs, on ${STAGE_CORES:-$(nproc)} cores"
    local wave names
    names=$(compgen -e | { grep '^COUPON__' || true; } | xargs)
    if [[ -n $names ]]; then say stage "from the environment: $names"; fi
    make_hosts
    for wave in "${WAVES[@]}"; do
        start_wave "$wave" || die "not all parts started; what did start still runs ('$0 status', '$0 down')"
    done
    print_addresses
}

print_addresses() {
    local host part line
    printf '\n'
    for host in "${hosts[@]}"; do
        line=''
        for part in "${parts[@]}"; do
            if [[ ${part_host[$part]} == "$host" && -n $(own_pid "$part") ]]; then line+=" $part:$(port_of "$part")"; fi
        done
        printf '%-12s %-14s %4s vCPU, %s cores %s\n' "$host" "${host_address[$host]}" "${host_vcpu[$host]}" "${host_cores[$host]}" "$line"
    done
    printf '\n'
    grep -E '^(BASE_URLS|PROMETHEUS_URL|JWT_SECRET_FILE)=' "$STATE/addresses.env"
}

down() {
    if [[ ! -r $STATE/plan/parts ]]; then
        say stage "none was started here"
        return 0
    fi
    read_plan
    local index failed=0 left
    left=$(guests)
    if [[ -n $left ]]; then die "these run on hosts of the stage and were not started by it; end them first:"$'\n'"$left"; fi
    for ((index = ${#WAVES[@]} - 1; index >= 0; index--)); do stop_wave "${WAVES[index]}" || failed=1; done
    end_leftovers || failed=1
    remove_hosts || failed=1
    ((failed == 0)) || die "not everything could be ended (see above)"
    say stage "down; logs are in $STATE"
}

status() {
    read_plan
    local part pid state used all=0
    printf '%-16s %-12s %-20s %-8s %-14s %s\n' PART HOST ADDRESS PID STATE 'MEMORY / LIMIT, MiB'
    for part in "${parts[@]}"; do
        pid=$(own_pid "$part") state=stopped used=-
        if [[ -n $pid ]]; then
            state=ready
            healthy "$part" || state="not answering"
            used=$(awk '{ print int($1 / 1048576) }' "$CGROUPS/memory/coupon-stage/${part_host[$part]}/$part/memory.usage_in_bytes")
        fi
        if [[ $state != ready ]]; then all=1; fi
        printf '%-16s %-12s %-20s %-8s %-14s %s / %s\n' "$part" "${part_host[$part]}" "$(address_of "$part")" "${pid:--}" "$state" "$used" "${part_memory[$part]}"
    done
    return "$all"
}

# The parts that are meant, in the order in which they are started.
meant() { # parts and hosts...
    local word part wave found
    for word in "$@"; do
        [[ -n ${part_kind[$word]:-} || -n ${host_address[$word]:-} ]] || die "there is no part or host '$word'"
    done
    for wave in "${WAVES[@]}"; do
        for part in $(parts_of_wave "$wave"); do
            found=" $* "
            if [[ $found == *" $part "* || $found == *" ${part_host[$part]} "* ]]; then echo "$part"; fi
        done
    done
}

change() { # stop, kill or start; parts and hosts...
    local command=$1 part pid which=() running=()
    shift
    (($# > 0)) || die "which part or host?"
    read_plan
    meant "$@" >/dev/null
    mapfile -t which < <(meant "$@")
    ((${#which[@]})) || die "there are no parts on $*"
    for part in "${which[@]}"; do if [[ -n $(own_pid "$part") ]]; then running+=("$part"); fi; done
    case $command in
        start)
            ((${#running[@]} == 0)) || die "already running: ${running[*]}"
            find_service_of_stage
            start_parts "${which[@]}"
            ;;
        stop) stop_parts "${which[@]}" ;;
        kill)
            for part in "${running[@]}"; do
                pid=$(own_pid "$part")
                kill -KILL "$pid"
                say "$part" "killed (pid $pid)"
            done
            ;;
    esac
}

run_on() { # host, command...
    read_plan
    local host=${1:-}
    shift || true
    [[ -n $host && -n ${host_address[$host]:-} ]] || die "there is no host '$host'; there are ${hosts[*]}"
    (($# > 0)) || die "which command?"
    exec "$HERE/stage/enter.sh" "$host" "" "$@"
}

main() {
    local command=${1:-help}
    shift || true
    [[ $STATE == /*/.stage ]] || die "STAGE_STATE is '$STATE'; it must be an absolute path that ends in /.stage"
    case $command in
        up) up "${1:?which stage?}" ;;
        down) down ;;
        status) status ;;
        stop | kill | start) change "$command" "$@" ;;
        exec) run_on "$@" ;;
        plan) plan_of show "${1:?which stage?}" ;;
        help | -h | --help) usage ;;
        *)
            usage >&2
            exit 64
            ;;
    esac
}

main "$@"
