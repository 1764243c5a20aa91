#!/usr/bin/env bash
# How fast, as ratios to ceilings of the same run: starts the local stack, measures the release build, stops what was started.
#   ROUNDS=5 ROUND_SECONDS=4 DRAIN_SECONDS=60 WARM_UP_SECONDS=15 ROWS=200000 ONLY=embedded,distributed,drained,drain,gate
#   COUPON_SVC=target/release/coupon-svc
# The table stays in target/bench/latest.md and latest.json. Exit code 1 when a goal is missed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ulimit -n "$(ulimit -Hn)" || true

# shellcheck source=scripts/stack/borrow.sh
source scripts/stack/borrow.sh

# Both in one build.
cargo build --release --features bench --bins
export COUPON_SVC=${COUPON_SVC:-$PWD/target/release/coupon-svc}
STACK_MODE=native STACK_STARTED_FILE=$started scripts/stack.sh up
target/release/coupon-bench
