# shellcheck shell=bash
# What the load scripts share: k6, open files, numbers out of JSON, CPU seconds. Sourced, never run.

K6_VERSION=v1.8.1

die() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

say() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*"
}

# Sets K6, and installs it where it is missing.
find_k6() {
    K6=$(command -v k6 || true)
    [[ -n $K6 ]] && return
    K6=$HOME/go/bin/k6
    [[ -x $K6 ]] && return
    command -v go >/dev/null || die "k6 is not installed, and there is no go to install it with: see https://grafana.com/docs/k6/latest/set-up/install-k6/"
    say "installing k6 $K6_VERSION with go (once, a few minutes)"
    GOBIN=$HOME/go/bin nice go install "go.k6.io/k6@$K6_VERSION" 2>&1 | grep -v '^go: downloading' || true
    [[ -x $K6 ]] || die "k6 could not be installed"
}

# k6 keeps one socket for each user, and so does the service in its own process.
need_open_files() { # users
    ulimit -n "$(ulimit -Hn)" || true
    (($(ulimit -n) >= $1 + 256)) || die "$1 users need $(($1 + 256)) open files, and the limit is $(ulimit -n): raise it, or set USERS lower"
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

# The books are complete once nothing accepted is unwritten; until then the audit is asked again. Sets audit_status, audit_json, unwritten.
run_audit() { # binary, seconds, log, flags...
    local service=$1 deadline=$((SECONDS + $2)) log=$3
    shift 3
    while :; do
        audit_status=0
        audit_json=$("$service" audit --json "$@" 2>"$log") || audit_status=$?
        unwritten=$({ grep -oE '"unwritten" *: *[0-9]+' <<<"$audit_json" || true; } | awk -F ': *' '{ sum += $2; found = 1 } END { if (found) print sum }')
        if [[ $unwritten == 0 ]] || ((SECONDS >= deadline)); then return; fi
        sleep 0.5
    done
}
