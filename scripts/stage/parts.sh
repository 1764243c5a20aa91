# shellcheck shell=bash
# The parts of a stage: how each is started on its host and asked whether it is well. How they are configured is in the plan
# (scripts/topology). Sourced after scripts/stack/*.sh, whose functions start and stop them; never run.
# shellcheck disable=SC2034,SC2154 # shared with scripts/stage.sh and scripts/stack/*.sh

parts=()
declare -A part_kind=() part_host=() part_address=() part_port=() part_ops_port=() part_memory=()

# Started together, one wave after the other; stopped in the opposite order.
# The exporter of nginx ends when it finds no nginx at its start.
WAVES=("redis kafka mysql" "sentinel" "api consumer" "nginx prometheus redis-exporter mysqld-exporter node-exporter" "nginx-exporter")

read_parts() {
    local part kind host address port ops memory
    parts=()
    while read -r part kind host address port ops memory; do
        parts+=("$part")
        part_kind[$part]=$kind part_host[$part]=$host part_address[$part]=$address
        part_port[$part]=$port part_ops_port[$part]=$ops part_memory[$part]=$memory
    done <"$STATE/plan/parts"
}

# In the place of the local stack's: where a part listens is said by the plan.
port_of() { # part
    local port=${part_port[$1]}
    if ((port == 0)); then port=${part_ops_port[$1]}; fi
    echo "$port"
}
ports_of() { port_of "$1"; }
address_of() { echo "${part_address[$1]}:$(port_of "$1")"; }

parts_of_wave() { # kinds
    local part
    for part in "${parts[@]}"; do
        if [[ " $1 " == *" ${part_kind[$part]} "* ]]; then echo "$part"; fi
    done
}

program_of() { # kind of a part that comes with Debian
    case $1 in
        nginx) echo nginx ;;
        prometheus) echo prometheus ;;
        redis-exporter) echo prometheus-redis-exporter ;;
        mysqld-exporter | nginx-exporter | node-exporter) echo "prometheus-$1" ;;
    esac
}

install_programs() {
    local part program packages=()
    command -v curl >/dev/null || packages+=(curl)
    for part in "${parts[@]}"; do
        program=$(program_of "${part_kind[$part]}")
        if [[ -z $program ]] || command -v "$program" >/dev/null; then continue; fi
        if [[ $program == nginx ]]; then program=nginx-light; fi
        packages+=("$program")
    done
    mkdir -p "$CACHE"
    install_apt_packages "${packages[@]}"
}

# A link to its program in the part's own folder: that is how the process is known to be of this stage.
own_program() { # part, program
    ln -sf "$2" "$STATE/$1/${2##*/}"
    echo "$STATE/$1/${2##*/}"
}

start_part() { # part
    local part=$1 kind=${part_kind[$1]} arguments environment program
    mapfile -d '' -t arguments <"$STATE/$part/arguments"
    launch_through=("$ROOT/scripts/stage/enter.sh" "${part_host[$part]}" "$part")
    case $kind in
        redis | sentinel) launch "$part" redis-server "${arguments[@]}" ;;
        kafka) start_broker "$part" "${arguments[@]}" || return 1 ;;
        mysql) launch_mysql "${arguments[@]}" || return 1 ;;
        nginx | prometheus) launch "$part" "$(program_of "$kind")" "${arguments[@]}" ;;
        *)
            mapfile -d '' -t environment <"$STATE/$part/environment"
            if [[ $kind == api ]]; then environment+=("COUPON__JWT__HS256_SECRET=$(<"$STATE/jwt-secret")"); fi
            program=$SERVICE_PROGRAM
            if [[ $kind == *-exporter ]]; then program=$(command -v "$(program_of "$kind")"); fi
            program=$(own_program "$part" "$program")
            # By the environment and not by `env`: secrets are in no command line.
            (
                for setting in "${environment[@]}"; do
                    # What the caller says wins.
                    if [[ ! -v ${setting%%=*} ]]; then export "${setting?}"; fi
                done
                launch "$part" "$program" "${arguments[@]}"
            )
            ;;
    esac
    wait_healthy "$part"
}

healthy() { # part
    local address=${part_address[$1]} port=${part_port[$1]} code
    case ${part_kind[$1]} in
        redis | sentinel) [[ $(timeout 3 redis-cli -h "$address" -p "$port" ping 2>/dev/null) == PONG ]] ;;
        kafka) timeout 4 "$ROOT/docker/kafka/answers.sh" "$address" "$port" 2>/dev/null ;;
        mysql) [[ $(MYSQL_HOST=$address MYSQL_PORT=$port MYSQL_PWD=coupon query_mysql 'SELECT 1') == 1 ]] ;;
        api | consumer) page_answers "http://$address:${part_ops_port[$1]}/readyz" ;;
        nginx)
            # Nobody has a token here: an API behind it that says so is well.
            code=$(curl -s -m 3 -o /dev/null -w '%{http_code}' "http://$address:$port/api/v1/coupons") || return 1
            [[ $code == 401 || $code == 200 ]]
            ;;
        prometheus) page_answers "http://$address:$port/-/ready" ;;
        *) page_answers "http://$address:$port/metrics" ;;
    esac
}

page_answers() { # url
    curl -fs -m 3 -o /dev/null "$1"
}

start_wave() { # kinds
    local wave
    mapfile -t wave < <(parts_of_wave "$1")
    start_parts "${wave[@]}"
}

# All at once; fails when one of them did not start.
start_parts() { # parts...
    local part job failed=0 jobs=()
    for part in "$@"; do
        say "$part" "starting on ${part_host[$part]}"
        start_part "$part" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    return "$failed"
}

stop_wave() { # kinds
    local wave
    mapfile -t wave < <(parts_of_wave "$1")
    stop_parts "${wave[@]}"
}

# Whoever is still in the cgroup of a part was started with it, and is nobody else's.
end_leftovers() {
    local part pid file deadline=$((SECONDS + 5)) signal=TERM
    while :; do
        local left=()
        for part in "${parts[@]}"; do
            file=$CGROUPS/memory/coupon-stage/${part_host[$part]}/$part/cgroup.procs
            [[ -r $file ]] || continue
            while read -r pid; do left+=("$pid"); done <"$file"
        done
        ((${#left[@]})) || return 0
        if ((SECONDS >= deadline)); then signal=KILL; fi
        kill "-$signal" "${left[@]}" 2>/dev/null || true
        if ((SECONDS >= deadline + 5)); then return 1; fi
        sleep 0.2
    done
}
