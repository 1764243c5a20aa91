# shellcheck shell=bash
# What every part of the stack shares: where things are, progress lines, processes, ports. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# Named .stack wherever it is: that is how a process is known to belong to a stack.
STATE=${STACK_STATE:-$ROOT/.stack}
CACHE=${COUPON_STACK_CACHE:-$HOME/.cache/coupon-stack}
RUN=$STATE/run

KAFKA_VERSION=3.9.1
MYSQL_SUITE=sid

REDIS_PORT=${STACK_REDIS_PORT:-16379}
REDIS_TLS_PORT=${STACK_REDIS_TLS_PORT:-16380}
KAFKA_PORT=${STACK_KAFKA_PORT:-19092}
MYSQL_PORT=${STACK_MYSQL_PORT:-13306}
MARIADB_PORT=${STACK_MARIADB_PORT:-13307}

KAFKA_BROKERS=${KAFKA_BROKERS:-1}
DB=${DB:-mysql}
WITH_MARIADB=${WITH_MARIADB:-0}
WITH_CHAOS=${WITH_CHAOS:-0}
WAIT_SECONDS=${STACK_WAIT_SECONDS:-90}
STOP_SECONDS=${STACK_STOP_SECONDS:-20}

# Every part there can be. `mariadb-main` takes the place of `mysql` with DB=mariadb; `mariadb` is the second database of the tests.
ALL_PARTS=(redis kafka kafka-2 kafka-3 mysql mariadb-main mariadb)

started_at=${EPOCHREALTIME/[.,]/}

say() { # part, words...
    local part=$1 elapsed
    shift
    elapsed=$(((${EPOCHREALTIME/[.,]/} - started_at) / 100000))
    printf '[%4d.%ds] %-12s %s\n' $((elapsed / 10)) $((elapsed % 10)) "$part" "$*"
}

die() {
    printf 'stack: %s\n' "$*" >&2
    exit 1
}

wanted_parts() {
    echo redis
    kafka_parts
    if [[ $DB == mariadb ]]; then echo mariadb-main; else echo mysql; fi
    if [[ $WITH_MARIADB == 1 ]]; then echo mariadb; fi
}

# One broker, or a cluster of three that keeps what it acknowledged when one of them is gone.
kafka_parts() {
    echo kafka
    if [[ $KAFKA_BROKERS == 3 ]]; then printf '%s\n' kafka-2 kafka-3; fi
}

broker_id() { # part
    case $1 in
        kafka) echo 1 ;;
        *) echo "${1#kafka-}" ;;
    esac
}

# Broker 1 is on KAFKA_PORT; each further one a hundred ports above, unless a variable says so: STACK_KAFKA_2_PORT and so on.
kafka_port() { # part, kind: "" (plain), PROXIED_, PROXY_, CONTROLLER_ or SECURED_
    local id above name
    id=$(broker_id "$1")
    case $2 in
        PROXIED_) above=2 ;;
        PROXY_) above=3 ;;
        CONTROLLER_) above=4 ;;
        SECURED_) above=5 ;;
        *) above=0 ;;
    esac
    name=STACK_KAFKA_${2}PORT
    if ((id > 1)); then name=STACK_KAFKA_${id}_${2}PORT; fi
    echo "${!name:-$((19092 + 100 * (id - 1) + above))}"
}

port_of() { # part
    case $1 in
        redis) echo "$REDIS_PORT" ;;
        kafka*) kafka_port "$1" "" ;;
        mysql | mariadb-main) echo "$MYSQL_PORT" ;;
        mariadb) echo "$MARIADB_PORT" ;;
    esac
}

address_of() { # part
    echo "127.0.0.1:$(port_of "$1")"
}

# Every port a part listens on, so that none of them is found taken only by the server itself.
ports_of() { # part
    port_of "$1"
    case $1 in
        redis) echo "$REDIS_TLS_PORT" ;;
        kafka*)
            kafka_port "$1" PROXIED_
            kafka_port "$1" CONTROLLER_
            kafka_port "$1" SECURED_
            ;;
    esac
}

command_line() { # pid
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || true
}

is_zombie() { # pid
    [[ $(sed -e 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) == Z ]]
}

# The pid of a part started by this checkout, or nothing. A pid that another program has taken over since is not ours:
# every server of ours has its own folder in its command line.
own_pid() { # part
    local pid
    [[ -r $RUN/$1.pid ]] || return 0
    pid=$(<"$RUN/$1.pid")
    if [[ $pid =~ ^[0-9]+$ && -d /proc/$pid && $(command_line "$pid") == *"$STATE/$1/"* ]] && ! is_zombie "$pid"; then
        echo "$pid"
    fi
}

port_is_open() { # port
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The pid that listens on a loopback port, or nothing where it cannot be told.
port_pid() { # port
    command -v ss >/dev/null || return 0
    ss -ltnpH "sport = :$1" 2>/dev/null | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -n 1
}

# The checkout whose stack a process belongs to, and the part it is, as "folder part"; nothing for a stranger.
stack_of_pid() { # pid
    [[ -n $1 ]] || return 0
    command_line "$1" | { grep -oE '/[^=:]*/\.stack/[a-z0-9-]+/' || true; } | tail -n 1 |
        sed -E 's|^(.* )?(/.*)/\.stack/([a-z0-9-]+)/$|\2 \3|'
}

describe_pid() { # pid
    if [[ -z $1 ]]; then
        echo "a process that cannot be seen from here"
    else
        printf 'pid %s (%s)' "$1" "$(command_line "$1" | cut -c1-100 | sed 's/ *$//')"
    fi
}

# What every server is started through, for a caller that wants it somewhere else than here: a command that becomes the one after it.
launch_through=()

# Starts a server that outlives this script and everything that waits for this script's output.
launch() { # part, command...
    local part=$1 log=$STATE/$1/$1.log
    shift
    mkdir -p "$RUN"
    (
        cd "$STATE/$part"
        ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
        for fd in /proc/"$BASHPID"/fd/*; do
            fd=${fd##*/}
            if ((fd > 2 && fd != 255)); then exec {fd}>&-; fi
        done
        exec setsid nohup ${launch_through[@]+"${launch_through[@]}"} "$@"
    ) >>"$log" 2>&1 </dev/null &
    local pid=$! deadline=$((SECONDS + 10))
    echo "$pid" >"$RUN/$part.pid"
    ports_of "$part" | xargs >"$RUN/$part.ports"
    disown
    # Until it has become the server it is a copy of this script, which nobody takes for the part.
    while [[ -z $(own_pid "$part") && -d /proc/$pid ]] && ! is_zombie "$pid" && ((SECONDS < deadline)); do sleep 0.02; done
}

log_tail() { # part
    local log=$STATE/$1/$1.log
    [[ -r $log ]] || return 0
    printf -- '--- last lines of %s\n' "$log" >&2
    tail -n 40 "$log" >&2
    printf -- '---\n' >&2
}

# Waits until a part answers; gives up at once when its process is gone, and after WAIT_SECONDS in any case.
wait_healthy() { # part
    local part=$1 deadline=$((SECONDS + WAIT_SECONDS))
    until healthy "$part"; do
        # Twice: in the moment in which a process becomes another program it has no command line.
        if [[ -z $(own_pid "$part") ]] && sleep 0.2 && [[ -z $(own_pid "$part") ]]; then
            log_tail "$part"
            say "$part" "FAILED: the process ended before it answered" >&2
            return 1
        fi
        if ((SECONDS >= deadline)); then
            log_tail "$part"
            say "$part" "FAILED: no answer on $(address_of "$part") within $WAIT_SECONDS s" >&2
            return 1
        fi
        sleep 0.2
    done
    say "$part" "ready on $(address_of "$part"), pid $(own_pid "$part")"
}

stop_part() { # part
    local part=$1 pid deadline=$((SECONDS + STOP_SECONDS))
    pid=$(own_pid "$part")
    if [[ -z $pid ]]; then
        rm -f "$RUN/$part.pid"
        return 0
    fi
    kill -CONT "$pid" 2>/dev/null || true
    kill -TERM "$pid" 2>/dev/null || true
    while [[ -n $(own_pid "$part") ]]; do
        if ((SECONDS >= deadline)); then
            say "$part" "pid $pid did not stop within $STOP_SECONDS s: killing it"
            kill -KILL "$pid" 2>/dev/null || true
            deadline=$((SECONDS + 5))
            while [[ -n $(own_pid "$part") ]] && ((SECONDS < deadline)); do sleep 0.1; done
            break
        fi
        sleep 0.1
    done
    if [[ -n $(own_pid "$part") ]]; then
        say "$part" "FAILED: pid $pid does not even end when killed" >&2
        return 1
    fi
    rm -f "$RUN/$part.pid"
    say "$part" "stopped (pid $pid)"
}

# All at once; fails when one of them did not stop.
stop_parts() { # parts...
    local part job jobs=() failed=0
    for part in "$@"; do
        stop_part "$part" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    return "$failed"
}
