# shellcheck shell=bash
# Processes of a load test: started with a name, sampled under it, and stopped again, these and no others. Sourced, never run.

# Names in the order they were started, and their pids.
started_names=()
declare -A started_pids=()

# Keeps a process out of Ctrl-C's way: what was started here is stopped by `stop_processes`, in order.
start_process() { # name, command...
    local name=$1
    shift
    setsid "$@" >"$OUT/logs/$name.log" 2>&1 </dev/null &
    started_pids[$name]=$!
    started_names+=("$name")
    sample "$name" "$!"
}

# From now on this process's CPU time and memory are in Prometheus.
sample() { # name, pid
    echo "$2" >"$OUT/pids/$1"
}

stop_processes() { # names...
    local name pid deadline=$((SECONDS + 30))
    for name in "$@"; do kill -TERM "${started_pids[$name]}" 2>/dev/null || true; done
    for name in "$@"; do
        pid=${started_pids[$name]}
        while kill -0 "$pid" 2>/dev/null; do
            if ((SECONDS >= deadline)); then
                say "$name (pid $pid) did not stop within 30 s: killing it"
                kill -KILL "$pid" 2>/dev/null || true
                break
            fi
            sleep 0.1
        done
        wait "$pid" 2>/dev/null || true
    done
}

# Dies with the last lines of the log when the process ends before its page answers.
wait_for_page() { # name, url
    local deadline=$((SECONDS + ${START_SECONDS:-180}))
    until curl -fsS -m 2 -o /dev/null "$2" 2>/dev/null; do
        if ! kill -0 "${started_pids[$1]}" 2>/dev/null || ((SECONDS >= deadline)); then
            tail -n 20 "$OUT/logs/$1.log" >&2
            die "$1 did not answer at $2"
        fi
        sleep 0.2
    done
}

need_free_ports() { # ports...
    local port
    for port in "$@"; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            die "port $port is taken: choose another range with PORT (now $PORT)"
        fi
    done
}
