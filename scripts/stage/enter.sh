#!/usr/bin/env bash
# Becomes a command on a host of the stage: in its network, within its share of the CPUs and its limits of memory.
# usage: enter.sh HOST PART COMMAND...     (PART may be empty: then the host's own limit holds)
# By nsenter and not `ip netns exec`: that hides /sys/fs/cgroup, and then Java and the service would not see their limits.
set -euo pipefail

host=$1 part=$2
shift 2
echo $$ >"/sys/fs/cgroup/cpu/coupon-stage/$host/cgroup.procs"
echo $$ >"/sys/fs/cgroup/memory/coupon-stage/$host${part:+/$part}/cgroup.procs"
exec nsenter --net="/run/netns/coupon-stage-$host" "$@"
