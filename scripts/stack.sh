#!/usr/bin/env bash
# The local stack: Redis, Kafka and MySQL on fixed loopback ports, in containers where a Docker engine runs, else natively.
set -euo pipefail

HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/stack/lib.sh
source "$HERE/stack/lib.sh"
# shellcheck source=scripts/stack/tls.sh
source "$HERE/stack/tls.sh"
# shellcheck source=scripts/stack/install.sh
source "$HERE/stack/install.sh"
# shellcheck source=scripts/stack/servers.sh
source "$HERE/stack/servers.sh"
# shellcheck source=scripts/stack/docker.sh
source "$HERE/stack/docker.sh"

usage() {
    cat <<'USAGE'
usage: scripts/stack.sh COMMAND

  up [PART...]     install what is missing, start what does not run, wait until all answer; safe to run twice
  down [PART...]   stop what this checkout started; data stays
  status           one line for each part; exit 1 unless all run
  logs [PART...]   the last lines of each server's log
  install          only download what `up` would need
  wipe             down, and delete all data of this checkout's stack
  tls-dir          print the folder with ca.pem, which vouches for the secured listeners; made when missing

Parts: redis kafka (kafka-2 kafka-3) mysql mariadb-main mariadb

Variables:
  DB=mysql|mariadb       the database on the main port (default mysql)
  KAFKA_BROKERS=3        a cluster of three brokers: replication 3, min.insync.replicas 2 (natively only)
  WITH_MARIADB=1         also start a MariaDB on a second port, as the tests need it
  WITH_CHAOS=1           also install what a chaos run needs: toxiproxy and libfaketime
  STACK_MODE=native      do not use Docker even where it runs (docker: use nothing else)
  STACK_REDIS_PORT=16379 STACK_REDIS_TLS_PORT=16380 STACK_KAFKA_PORT=19092 STACK_KAFKA_PROXIED_PORT=19094
  STACK_KAFKA_PROXY_PORT=19095 STACK_KAFKA_CONTROLLER_PORT=19096 STACK_KAFKA_SECURED_PORT=19097 (SASL_SSL)
  STACK_MYSQL_PORT=13306 STACK_MARIADB_PORT=13307 (both with TLS on the same port)
  STACK_KAFKA_2_PORT=19192 and so on for brokers 2 and 3: a hundred ports above
  STACK_STATE=.stack     where pids, logs and data are; another folder, named .stack too, is another stack
  STACK_WAIT_SECONDS=90  how long a server may take to answer
  STACK_STARTED_FILE     `up` writes the parts it started itself into this file
  COUPON_STACK_CACHE     where downloads and the certificate are kept for all checkouts (default ~/.cache/coupon-stack)
USAGE
}

# Says which parts this very call started, for a caller that wants to stop exactly those.
record_started() { # part
    if [[ -n ${STACK_STARTED_FILE:-} ]]; then echo "$1" >>"$STACK_STARTED_FILE"; fi
}

# Decides what `up` has to do for a part: prints "start", "ours", or "foreign FOLDER". Fails with a reason where a port is taken
# by something that cannot be used.
plan() { # part
    local part=$1 port ports pid found folder
    if [[ -n $(own_pid "$part") ]]; then
        # One started before it had a secured listener did not note its ports.
        ports=$(cat "$RUN/$part.ports" 2>/dev/null || true)
        if [[ $ports != "$(ports_of "$part" | xargs)" ]]; then
            die "$part of this checkout already runs, on port ${ports:-unknown} and not $(ports_of "$part" | xargs): run '$0 down $part' first"
        fi
        echo ours
        return 0
    fi
    while read -r port; do
        port_is_open "$port" || continue
        pid=$(port_pid "$port")
        found=$(stack_of_pid "$pid")
        folder=${found% *}
        if [[ -z $found ]]; then
            die "$part: port $port is taken by $(describe_pid "$pid"), which is no stack of this project: stop it, or choose another port (see '$0 help')"
        elif [[ ${found##* } != "$part" && $folder == "$ROOT" ]]; then
            die "$part: port $port is taken by this checkout's ${found##* } (pid $pid): run '$0 down ${found##* }' first"
        elif [[ ${found##* } != "$part" ]]; then
            die "$part: port $port is taken by ${found##* } of the stack in $folder (pid $pid): stop it there with 'scripts/stack.sh down ${found##* }', or choose another port (see '$0 help')"
        elif [[ $folder == "$ROOT" ]]; then
            # Ours, but its pid file was lost; take it back.
            mkdir -p "$RUN"
            echo "$pid" >"$RUN/$part.pid"
            ports_of "$part" | xargs >"$RUN/$part.ports"
            echo ours
        elif healthy "$part"; then
            echo "foreign $folder"
        else
            die "$part: port $port is taken by the stack in $folder (pid $pid), and it does not answer: restart it there with 'scripts/stack.sh down; scripts/stack.sh up'"
        fi
        return 0
    done < <(ports_of "$part")
    echo start
}

start_part() { # part
    mkdir -p "$STATE/$1"
    "launch_$1" && settle "$1"
}

# Waits until a part answers, and does what can only be done then.
settle() { # part
    wait_healthy "$1" || return 1
    if [[ $1 == kafka && $KAFKA_BROKERS == 1 ]]; then settle_kafka; fi
}

native_up() { # parts...
    local part decision parts=("$@") failed=0
    local -A job_of=()
    mkdir -p "$RUN"
    exec {stack_lock}>"$STATE/lock"
    flock -w $((WAIT_SECONDS * 2)) "$stack_lock" || die "another 'stack.sh up' of this checkout is still at work"
    install_missing
    ((${#parts[@]})) || mapfile -t parts < <(wanted_parts)
    # Look at everything before starting anything: a taken port is said before servers run half.
    local -A decisions=()
    for part in "${parts[@]}"; do decisions[$part]=$(plan "$part"); done
    for part in "${parts[@]}"; do
        decision=${decisions[$part]}
        case $decision in
            start)
                say "$part" "starting"
                record_started "$part"
                start_part "$part" &
                job_of[$part]=$!
                ;;
            ours)
                settle "$part" &
                job_of[$part]=$!
                ;;
            foreign*)
                say "$part" "uses the one of ${decision#foreign } on 127.0.0.1:$(port_of "$part"); 'down' here leaves it alone"
                ;;
        esac
    done
    for part in "${!job_of[@]}"; do wait "${job_of[$part]}" || failed=1; done
    exec {stack_lock}>&-
    ((failed == 0)) || die "not all parts started; what did start still runs ('$0 status', '$0 down')"
    say stack "up"
}

native_wipe() {
    local part
    stop_parts "${ALL_PARTS[@]}"
    for part in "${ALL_PARTS[@]}"; do
        [[ -z $(own_pid "$part") ]] || die "$part still runs: its data is left alone"
    done
    rm -rf "$STATE"
    say stack "data deleted ($STATE)"
}

status() {
    local part pid found state version all=0 optional
    printf '%-13s %-18s %-8s %-42s %s\n' PART ADDRESS PID STATE VERSION
    for part in "${ALL_PARTS[@]}"; do
        optional=1
        if wanted_parts | grep -qx "$part"; then optional=0; fi
        pid=$(own_pid "$part") state='' version=''
        if [[ -n $pid ]]; then
            state=running
        elif port_is_open "$(port_of "$part")"; then
            pid=$(port_pid "$(port_of "$part")")
            found=$(stack_of_pid "$pid")
            if [[ -e $RUN/$part.docker ]]; then
                state='running (container)'
            elif [[ ${found##* } == "$part" ]]; then
                state="running (stack of ${found% *})"
            elif [[ $optional == 0 ]]; then
                state="port taken by $(describe_pid "$pid")"
                all=1
            fi
        elif [[ $optional == 0 ]]; then
            state=stopped
            all=1
        fi
        # A part nobody asked for and that does not run is not worth a line.
        [[ -n $state ]] || continue
        if [[ $state == running* ]]; then
            if [[ $state == *container* ]]; then
                version=container
            elif healthy "$part" 2>/dev/null; then
                version=$("version_$part")
            else
                state="not answering"
                all=1
            fi
        fi
        printf '%-13s %-18s %-8s %-42s %s\n' "$part" "127.0.0.1:$(port_of "$part")" "${pid:--}" "$state" "$version"
    done
    return "$all"
}

logs() { # parts...
    local part
    for part in "$@"; do
        if [[ -r $STATE/$part/$part.log ]]; then
            printf '==> %s\n' "$STATE/$part/$part.log"
            tail -n "${LINES_OF_LOG:-40}" "$STATE/$part/$part.log"
        fi
    done
}

known_parts() { # parts...
    local part
    for part in "$@"; do
        [[ " ${ALL_PARTS[*]} " == *" $part "* ]] || die "unknown part '$part' (known: ${ALL_PARTS[*]})"
    done
}

main() {
    local command=${1:-help}
    shift || true
    [[ $DB == mysql || $DB == mariadb ]] || die "DB is '$DB'; it must be mysql or mariadb"
    [[ $KAFKA_BROKERS == 1 || $KAFKA_BROKERS == 3 ]] || die "KAFKA_BROKERS is '$KAFKA_BROKERS'; it must be 1 or 3"
    [[ $STATE == /*/.stack ]] || die "STACK_STATE is '$STATE'; it must be an absolute path that ends in /.stack"
    known_parts "$@"
    local parts=("$@")
    ((${#parts[@]})) || parts=("${ALL_PARTS[@]}")
    case $command in
        up) if docker_wanted && [[ $KAFKA_BROKERS == 1 ]] && (($# == 0)); then docker_up; else native_up "$@"; fi ;;
        down)
            if compgen -G "$RUN/*.docker" >/dev/null; then docker_down "${parts[@]}"; fi
            stop_parts "${parts[@]}"
            ;;
        status) status ;;
        logs)
            if compgen -G "$RUN/*.docker" >/dev/null; then compose logs --tail 40; else logs "${parts[@]}"; fi
            ;;
        install) if docker_wanted; then compose pull; else install_missing; fi ;;
        wipe)
            if compgen -G "$RUN/*.docker" >/dev/null; then docker_wipe; fi
            native_wipe
            ;;
        tls-dir)
            install_certificate
            echo "$TLS_DIR"
            ;;
        help | -h | --help) usage ;;
        *)
            usage >&2
            exit 64
            ;;
    esac
}

main "$@"
