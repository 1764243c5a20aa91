#!/usr/bin/env bash
# The original system's load against a deployment stage: brings the stage up (scripts/stage.sh), lets the crowd go from the stage's host
# `load` (k6, loadtest/ramp.js), has the books audited, prints a row of our figures beside the original's, and ends the stage. The row is
# also in target/stage/STAGE.json, and what it is made of in target/stage/STAGE-TIME/. Exit code 1 when the audit is not
# clean, rows are missing, or an answer cannot be. With other hosts, events or another limit than described the file is target/stage/STAGE-WHAT.json.
#
# usage: scripts/loadtest-stage.sh STAGE      (make loadtest STAGE=...)
#
#   USERS="500 5000"        users at a time, one run for each (default: the original's for that stage)
#   ALL_SECONDS=90          how long all of them stay
#   TIME_SCALE=0.2          of the steps before: 5 %, 50 % and 70 % of the users, 90 s each at 1
#   THINK_SECONDS=1         between a user's answer and the next user's request
#   COUPONS=1               coupons the users are spread over (12 with faults or other events)
#   FAULTS=1                for stage `ha`, 0 for all others: a broker, the primary Redis, an API and a consumer's host are lost in turn
#   EVENTS="kill:PART ..."  other events, one after the other. kill:PART|HOST: lost, and started again EVENT_DOWN later. stop:PART|HOST:
#                           asked to end. start:PART|HOST: not there at first, starts now
#   EVENT_SLOT=40           seconds from one event to the next; EVENT_DOWN=15 of them a killed part stays away
#   APIS=N CONSUMERS=N      another number of hosts than described, where the stage has hosts for them
#   COUPON__LIMITER__RATE   as any other key of the service: wins over the stage's
#   MONITORING=1            0: without Prometheus and the exporters
#   STAGE_CROWD, STAGE_CPU  how the CPUs are shared, see `scripts/stage.sh help`
#   AUDIT_SECONDS=180       how long the drain may take
#   KEEP_STAGE=1            leave the stage running
#   COUPON_SVC=FILE         the service's binary (default: built now)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/loadtest/common.sh
source scripts/loadtest/common.sh
# shellcheck source=scripts/loadtest/stage.sh
source scripts/loadtest/stage.sh

STAGE=${1:-}
[[ -f docker/topologies/$STAGE.toml ]] || die "which stage? STAGE must be one of $(cd docker/topologies && echo *.toml | sed 's/\.toml//g')"
case $STAGE in
    single) USERS=${USERS:-500 5000} ;;
    scaled) USERS=${USERS:-10000} ;;
    *) USERS=${USERS:-7000} ;;
esac
if [[ $STAGE == ha ]]; then FAULTS=${FAULTS:-1}; fi
if [[ ${FAULTS:-0} == 1 ]]; then EVENTS=${EVENTS:-kill:kafka-2 kill:redis-1 kill:api-1 kill:consumer-1}; fi
EVENTS=${EVENTS:-}
COMMAND=$(stage_command_given)
TIME_SCALE=${TIME_SCALE:-0.2} ALL_SECONDS=${ALL_SECONDS:-90} THINK_SECONDS=${THINK_SECONDS:-1}
EVENT_LEAD=15 EVENT_SLOT=${EVENT_SLOT:-40} EVENT_DOWN=${EVENT_DOWN:-15}
COUPONS=${COUPONS:-$([[ -z $EVENTS ]] && echo 1 || echo 12)}
MONITORING=${MONITORING:-1}
export STAGE COMMAND TIME_SCALE THINK_SECONDS COUPONS MONITORING EVENT_DOWN PYTHONDONTWRITEBYTECODE=1
STATE=${STAGE_STATE:-$PWD/.stage}

plan_events
for users in $USERS; do need_open_files "$users"; done
find_k6
if [[ -z ${COUPON_SVC:-} ]]; then
    cargo build --release
    COUPON_SVC=target/release/coupon-svc
fi
COUPON_SVC=$(realpath "$COUPON_SVC")
export COUPON_SVC

finish() {
    local status=$?
    trap - EXIT INT TERM
    abandon_run
    if [[ ${KEEP_STAGE:-0} != 1 && -e $STATE/made ]]; then scripts/stage.sh down || status=1; fi
    exit "$status"
}
[[ ! -e $STATE/made ]] || die "a stage is up here already: 'scripts/stage.sh down' first"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

scripts/stage.sh up "$STAGE"
for part in "${absent[@]}"; do scripts/stage.sh stop "$part"; done
folders=()
for users in $USERS; do
    OUT=$PWD/target/stage/$STAGE-$users-$(date +%Y%m%d-%H%M%S)
    mkdir -p "$OUT"
    folders+=("$OUT")
    run_against_stage "$users"
done
# The stage's own file is of the stage as it is described.
variant=$STAGE${APIS:+-$APIS-apis}${CONSUMERS:+-$CONSUMERS-consumers}${COUPON__LIMITER__RATE:+-limit-$COUPON__LIMITER__RATE}
if [[ -n $EVENTS && ${FAULTS:-0} != 1 ]]; then variant+=-events; fi
python3 scripts/stage/row.py "target/stage/$variant.json" "${folders[@]}"
