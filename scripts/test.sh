#!/usr/bin/env bash
# Every test, from a fresh machine: brings the local stack up, runs the tests, and stops exactly what it started itself.
# KEEP_STACK=1 leaves the stack running. Arguments go to the test program: scripts/test.sh NAME_OF_A_TEST
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ulimit -n "$(ulimit -Hn)" || true

started=$(mktemp)

finish() {
    local status=$? parts
    mapfile -t parts <"$started"
    rm -f "$started"
    if ((${#parts[@]})); then
        if [[ ${KEEP_STACK:-0} == 1 ]]; then
            echo "the stack keeps running; scripts/stack.sh down stops it"
        else
            scripts/stack.sh down "${parts[@]}" || true
        fi
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Tests start servers of their own beside the stack, wherever that runs.
STACK_MODE=native WITH_MARIADB=1 WITH_CHAOS=1 scripts/stack.sh install
STACK_STARTED_FILE=$started WITH_MARIADB=1 scripts/stack.sh up
COUPON_TEST_TLS_DIR=$(scripts/stack.sh tls-dir)
export COUPON_TEST_TLS_DIR
if (($#)); then set -- -- "$@"; fi
cargo test --all-features --no-fail-fast "$@"
