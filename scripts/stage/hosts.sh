# shellcheck shell=bash
# The hosts of a stage: a network namespace each, joined by a bridge, and cgroups (v1) for CPU and memory. Whatever is made is written down
# first, so that it can be taken away again, and nothing else. Sourced, never run.
# shellcheck disable=SC2034,SC2154 # shared with scripts/stage.sh and scripts/stage/parts.sh

BRIDGE=coupon-stage
CGROUPS=/sys/fs/cgroup
MADE=$STATE/made

# Names of hosts in the order of the description, and what each has.
hosts=()
declare -A host_address=() host_vcpu=() host_cores=() host_weight=() host_quota=() host_memory=()

read_hosts() {
    local host address vcpu cores weight quota memory
    hosts=()
    while read -r host address vcpu cores weight quota memory; do
        hosts+=("$host")
        host_address[$host]=$address host_vcpu[$host]=$vcpu host_cores[$host]=$cores host_weight[$host]=$weight
        host_quota[$host]=$quota host_memory[$host]=$memory
    done <"$STATE/plan/hosts"
}

need_what_hosts_are_made_of() {
    ((EUID == 0)) || die "namespaces and cgroups need root"
    command -v ip >/dev/null || die "there is no 'ip' (package iproute2)"
    command -v nsenter >/dev/null || die "there is no 'nsenter' (package util-linux)"
    local controller
    for controller in cpu memory; do
        [[ -w $CGROUPS/$controller/cgroup.procs ]] || die "there is no cgroup v1 controller at $CGROUPS/$controller"
        [[ ! -e $CGROUPS/$controller/coupon-stage ]] || die "there is a stage on this machine already: end it where it was started, or remove $CGROUPS/$controller/coupon-stage"
    done
    if compgen -G "/sys/class/net/$BRIDGE" || compgen -G '/sys/class/net/cstage-*'; then
        die "there are these network interfaces already: of another stage?"
    fi
}

note() { # kind, name
    echo "$1 $2" >>"$MADE"
}

make_hosts() {
    local index=0 host namespace network
    network=$(<"$STATE/plan/network")
    note link "$BRIDGE"
    ip link add "$BRIDGE" type bridge
    ip address add "$network" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    note cgroup "$CGROUPS/cpu/coupon-stage"
    mkdir "$CGROUPS/cpu/coupon-stage"
    # All hosts together: without this they would weigh as much as one single process beside them.
    echo "$((1024 * ${STAGE_CORES:-$(nproc)}))" >"$CGROUPS/cpu/coupon-stage/cpu.shares"
    note cgroup "$CGROUPS/memory/coupon-stage"
    mkdir "$CGROUPS/memory/coupon-stage"
    # Where it is on for all, it cannot be set again.
    echo 1 2>/dev/null >"$CGROUPS/memory/coupon-stage/memory.use_hierarchy" || true
    for host in "${hosts[@]}"; do
        namespace=coupon-stage-$host
        [[ ! -e /run/netns/$namespace ]] || die "there is a namespace $namespace already"
        note namespace "$namespace"
        ip netns add "$namespace"
        note link "cstage-$index"
        ip link add "cstage-$index" type veth peer name eth0 netns "$namespace"
        ip link set "cstage-$index" master "$BRIDGE" up
        ip -n "$namespace" address add "${host_address[$host]}/${network#*/}" dev eth0
        ip -n "$namespace" link set lo up
        ip -n "$namespace" link set eth0 up
        ip -n "$namespace" route add default via "${network%/*}"
        # As docs/production.md has it; in a namespace they are the host's own.
        nsenter --net="/run/netns/$namespace" sysctl -q -w net.core.somaxconn=16384 net.ipv4.tcp_max_syn_backlog=16384 \
            net.ipv4.ip_local_port_range='20000 65535' net.ipv4.tcp_tw_reuse=1
        make_cgroups "$host"
        index=$((index + 1))
    done
}

make_cgroups() { # host
    local host=$1 folder part
    folder=$CGROUPS/cpu/coupon-stage/$host
    note cgroup "$folder"
    mkdir "$folder"
    cat "$STATE/plan/period" >"$folder/cpu.cfs_period_us"
    echo "${host_quota[$host]}" >"$folder/cpu.cfs_quota_us"
    echo "${host_weight[$host]}" >"$folder/cpu.shares"
    folder=$CGROUPS/memory/coupon-stage/$host
    note cgroup "$folder"
    mkdir "$folder"
    echo "${host_memory[$host]}M" >"$folder/memory.limit_in_bytes"
    for part in "${parts[@]}"; do
        [[ ${part_host[$part]} == "$host" ]] || continue
        note cgroup "$folder/$part"
        mkdir "$folder/$part"
        echo "${part_memory[$part]}M" >"$folder/$part/memory.limit_in_bytes"
    done
}

# Takes away what was made, the last first. What still has processes stays, and is said.
remove_hosts() {
    local kind name failed=0 left=()
    [[ -r $MADE ]] || return 0
    while read -r kind name; do
        case $kind in
            link) [[ ! -e /sys/class/net/$name ]] || ip link delete "$name" || failed=1 ;;
            namespace) [[ ! -e /run/netns/$name ]] || ip netns delete "$name" || failed=1 ;;
            cgroup)
                [[ -d $name ]] || continue
                # The kernel may need a moment for processes that have just ended.
                for _ in {1..50}; do
                    if rmdir "$name" 2>/dev/null; then continue 2; fi
                    sleep 0.1
                done
                mapfile -t left <"$name/cgroup.procs"
                say stage "FAILED: $name cannot be removed, its processes: ${left[*]:-none}" >&2
                failed=1
                ;;
        esac
    done < <(tac "$MADE")
    if ((failed == 0)); then rm -f "$MADE"; fi
    return "$failed"
}

# Whoever was started on a host by `exec` and still runs there.
guests() {
    local host pid
    for host in "${hosts[@]}"; do
        [[ -r $CGROUPS/memory/coupon-stage/$host/cgroup.procs ]] || continue
        while read -r pid; do
            echo "$host $pid $(command_line "$pid" | cut -c1-80)"
        done <"$CGROUPS/memory/coupon-stage/$host/cgroup.procs"
    done
}
