# shellcheck shell=bash
# Downloads what is missing. Programs come from apt, Kafka's jars from Maven Central, and MySQL (Debian ships only MariaDB) from
# Debian unstable, unpacked into a folder of its own. Downloads are shared by all checkouts; see CACHE.

KAFKA_LIBS=$CACHE/kafka-$KAFKA_VERSION
MYSQL_ROOT=$CACHE/mysql-$MYSQL_SUITE
TOXIPROXY_VERSION=v2.5.0
TOXIPROXY=$CACHE/toxiproxy-server

apt_packages_missing() {
    local part
    command -v openssl >/dev/null || [[ -d $TLS_DIR ]] || echo openssl
    for part in $(wanted_parts); do
        case $part in
            redis)
                command -v redis-server >/dev/null || echo redis-server
                command -v redis-cli >/dev/null || echo redis-tools
                ;;
            kafka)
                command -v java >/dev/null || echo openjdk-17-jre-headless
                [[ -d $KAFKA_LIBS ]] || command -v mvn >/dev/null || echo maven
                ;;
            mysql)
                [[ -d $MYSQL_ROOT ]] || command -v debootstrap >/dev/null || echo debootstrap
                [[ -d $MYSQL_ROOT || -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || echo debian-archive-keyring
                ;;
            mariadb | mariadb-main)
                command -v mariadbd >/dev/null || echo mariadb-server
                command -v mariadb >/dev/null || echo mariadb-client
                ;;
        esac
    done | sort -u
    if [[ $WITH_CHAOS == 1 ]]; then
        compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime
        [[ -x $TOXIPROXY ]] || command -v go >/dev/null || echo golang-go
    fi
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$*' needs root, and there is no sudo: run it yourself, then try again"
    fi
}

# Installing a server package must not start that server on its standard port.
without_service_start() {
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    (
        # shellcheck disable=SC2064 # the name is fixed now, on purpose
        trap "as_root rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        "$@"
    )
}

install_apt_packages() { # packages...
    local packages=("$@")
    ((${#packages[@]})) || return 0
    command -v apt-get >/dev/null || die "missing programs (${packages[*]} on Debian) and no apt-get: install them yourself"
    say install "apt-get install ${packages[*]}"
    if ! {
        as_root apt-get update -qq &&
            without_service_start as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "${packages[@]}"
    } >"$CACHE/apt.log" 2>&1; then
        tail -n 20 "$CACHE/apt.log" >&2
        die "apt-get could not install ${packages[*]}"
    fi
}

install_kafka() {
    [[ -d $KAFKA_LIBS ]] && return 0
    local fresh=$KAFKA_LIBS.new
    say install "Kafka $KAFKA_VERSION from Maven Central"
    rm -rf "$fresh"
    mkdir -p "$fresh"
    if ! mvn -q -B -f "$ROOT/scripts/stack/kafka-pom.xml" -Dkafka.version="$KAFKA_VERSION" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DoutputDirectory="$fresh" -DincludeScope=runtime >"$CACHE/kafka.log" 2>&1 </dev/null; then
        tail -n 20 "$CACHE/kafka.log" >&2
        die "Maven could not download Kafka (whole log: $CACHE/kafka.log)"
    fi
    mv "$fresh" "$KAFKA_LIBS"
    say install "Kafka $KAFKA_VERSION is in $KAFKA_LIBS"
}

# The proxy between the service and its servers in a chaos run.
install_toxiproxy() {
    [[ -x $TOXIPROXY ]] && return 0
    local folder=$CACHE/toxiproxy.new
    say install "toxiproxy $TOXIPROXY_VERSION with go"
    mkdir -p "$folder"
    if ! GOBIN=$folder GOFLAGS=-mod=mod go install "github.com/Shopify/toxiproxy/v2/cmd/server@$TOXIPROXY_VERSION" \
        >"$CACHE/toxiproxy.log" 2>&1 </dev/null; then
        tail -n 20 "$CACHE/toxiproxy.log" >&2
        die "go could not install toxiproxy"
    fi
    mv "$folder/server" "$TOXIPROXY"
    rmdir "$folder"
}

debian_mirror() {
    local found
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -vE '^[[:space:]]*#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
    echo "${COUPON_DEBIAN_MIRROR:-${found:-http://deb.debian.org/debian}}"
}

install_mysql() {
    [[ -d $MYSQL_ROOT ]] && return 0
    local fresh=$MYSQL_ROOT.new mirror
    mirror=$(debian_mirror)
    say install "MySQL from Debian $MYSQL_SUITE at $mirror (about 650 MB on disk, a minute or two)"
    discard_mysql "$fresh"
    if ! as_root debootstrap --variant=minbase --include=mysql-server-core,mysql-client-core \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        "$MYSQL_SUITE" "$fresh" "$mirror" >"$CACHE/mysql.log" 2>&1 </dev/null; then
        tail -n 20 "$CACHE/mysql.log" >&2
        discard_mysql "$fresh"
        die "debootstrap could not fetch MySQL (whole log: $CACHE/mysql.log); DB=mariadb needs no such download"
    fi
    as_root rm -rf "$fresh/var/cache/apt" "$fresh/var/lib/apt/lists"
    as_root mv "$fresh" "$MYSQL_ROOT"
    say install "MySQL is in $MYSQL_ROOT"
}

# A bootstrap that was cut short may have left /proc or /sys mounted inside its folder.
discard_mysql() { # folder
    [[ -d $1 ]] || return 0
    local mounted
    while read -r mounted; do
        as_root umount -l "$mounted"
    done < <(awk -v folder="$1/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r)
    as_root rm -rf --one-file-system "$1"
}

install_missing() {
    local jobs=() job failed=0 packages
    mkdir -p "$CACHE"
    # Two checkouts that install at once take turns: the second finds everything done.
    exec {cache_lock}>"$CACHE/lock"
    flock "$cache_lock"
    mapfile -t packages < <(apt_packages_missing)
    install_apt_packages "${packages[@]}"
    make_certificate
    install_kafka &
    jobs+=($!)
    if [[ $DB == mysql ]]; then
        install_mysql &
        jobs+=($!)
    fi
    if [[ $WITH_CHAOS == 1 ]]; then
        install_toxiproxy &
        jobs+=($!)
    fi
    for job in "${jobs[@]}"; do
        wait "$job" || failed=1
    done
    exec {cache_lock}>&-
    return "$failed"
}
