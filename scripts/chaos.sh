#!/usr/bin/env bash
# The promise under faults, against the release build: two APIs, three consumers and an embedded service, three brokers, MySQL and
# Redis, all started here and stopped at the end. Exit code 1 on a violation. The report stays in .chaos/.
#   SEED=1         the schedule of faults
#   MINUTES=10     how long faults are made; below 5 they are brief
#   OVERLOAD=1     instead: new users at twice the rate the service can take, while one server after another is away
#   COUPON_SVC=target/release/coupon-svc
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ulimit -n "$(ulimit -Hn)" || true

export CHAOS_SEED=${SEED:-1} CHAOS_MINUTES=${MINUTES:-10} CHAOS_OVERLOAD=${OVERLOAD:-}
export STACK_MODE=native WITH_CHAOS=1
scripts/stack.sh install
if [[ -z ${COUPON_SVC:-} ]]; then
    cargo build --release
    export COUPON_SVC=$PWD/target/release/coupon-svc
fi
cargo test --all-features --test chaos --no-run
program=$(cargo test --all-features --test chaos --no-run --message-format=json 2>/dev/null |
    grep '"name":"chaos"' | grep -oE '"executable":"[^"]+"' | tail -n 1 | cut -d'"' -f4)
[[ -x $program ]] || {
    echo "chaos: the program was not found after its build" >&2
    exit 1
}
exec "$program"
