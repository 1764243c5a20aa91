# shellcheck shell=bash
# The same stack in containers, where a Docker engine runs. One compose project serves every checkout of the machine.

docker_wanted() {
    case ${STACK_MODE:-auto} in
        native) return 1 ;;
        docker) return 0 ;;
        auto) command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 ;;
        *) die "STACK_MODE is '$STACK_MODE'; it must be native, docker or auto" ;;
    esac
}

compose() {
    STACK_REDIS_PORT=$REDIS_PORT STACK_REDIS_TLS_PORT=$REDIS_TLS_PORT STACK_KAFKA_PORT=$KAFKA_PORT \
        STACK_KAFKA_PROXIED_PORT=$(kafka_port kafka PROXIED_) STACK_KAFKA_PROXY_PORT=$(kafka_port kafka PROXY_) \
        STACK_KAFKA_SECURED_PORT=$(kafka_port kafka SECURED_) STACK_MYSQL_PORT=$MYSQL_PORT STACK_MARIADB_PORT=$MARIADB_PORT \
        STACK_TLS_DIR=$TLS_DIR \
        docker compose -p coupon-stack -f "$ROOT/docker/compose.yaml" --profile '*' "$@"
}

docker_up() {
    local parts part running fresh=()
    install_certificate
    mapfile -t parts < <(wanted_parts)
    running=$(compose ps --services --status running)
    for part in "${parts[@]}"; do
        if ! grep -qx "$part" <<<"$running"; then fresh+=("$part"); fi
    done
    say docker "docker compose up: ${parts[*]}"
    compose up -d --wait --wait-timeout $((WAIT_SECONDS * 2)) "${parts[@]}" || {
        compose logs --tail 40 "${parts[@]}" >&2
        die "the containers did not become healthy"
    }
    # The users of SCRAM are kept in the volume; made again, nothing changes.
    make_scram_users compose exec -T kafka /opt/kafka/bin/kafka-configs.sh --bootstrap-server localhost:9092 >/dev/null
    mkdir -p "$RUN"
    for part in "${fresh[@]}"; do
        touch "$RUN/$part.docker"
        record_started "$part"
    done
    say docker "ready"
}

docker_down() { # parts...
    local part ours=()
    for part in "$@"; do
        if [[ -e $RUN/$part.docker ]]; then ours+=("$part"); fi
    done
    if ((${#ours[@]} == 0)); then
        say docker "nothing here was started by this checkout"
        return 0
    fi
    compose stop --timeout "$STOP_SECONDS" "${ours[@]}"
    for part in "${ours[@]}"; do rm -f "$RUN/$part.docker"; done
}

docker_wipe() {
    compose down --volumes --timeout "$STOP_SECONDS"
}
