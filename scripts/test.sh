#!/usr/bin/env bash
# Every test, from a fresh machine: brings the local stack up, runs the tests, and stops exactly what it started itself.
# KEEP_STACK=1 leaves the stack running. Arguments go to the test program: scripts/test.sh NAME_OF_A_TEST
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ulimit -n "$(ulimit -Hn)" || true

# shellcheck source=scripts/stack/borrow.sh
source scripts/stack/borrow.sh

# Tests start servers of their own beside the stack, wherever that runs.
STACK_MODE=native WITH_MARIADB=1 WITH_CHAOS=1 scripts/stack.sh install
STACK_STARTED_FILE=$started WITH_MARIADB=1 scripts/stack.sh up
COUPON_TEST_TLS_DIR=$(scripts/stack.sh tls-dir)
export COUPON_TEST_TLS_DIR
if (($#)); then
    set -- -- "$@"
else
    scripts/install-check.sh
    # The same build that the tests need.
    cargo build --all-features
    COUPON_SVC=target/debug/coupon-svc scripts/dashboards-check.sh
fi
cargo test --all-features --no-fail-fast "$@"
