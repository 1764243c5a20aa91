#!/usr/bin/env bash
# Installs into an empty folder and takes it away again, and looks at what is there in between. Needs no build: any file stands for the
# binary. With systemd on this machine the units are also read by it, at their places, and nginx reads its example where there is one.
# Numbers of the units and of nginx that follow from the service's defaults are compared with them.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$(mktemp -d)
trap 'rm -rf "$root" "$root.log"' EXIT
log=$root.log

fail() {
    echo "install-check: $*" >&2
    [[ ! -s $log ]] || sed 's/^/    /' "$log" >&2
    exit 1
}

run() { # destination, command, VARIABLE=VALUE...
    local destination=$1 command=$2
    shift 2
    env BINARY=/bin/true DESTDIR="$destination" "$@" scripts/install.sh "$command" >"$log" 2>&1 || fail "$command $* failed"
}

has() { # path, mode
    [[ -f $1 ]] || fail "$1 is missing"
    [[ $(stat -c %a "$1") == "$2" ]] || fail "$1 has mode $(stat -c %a "$1") instead of $2"
}

files_under() { # folder
    (cd "$1" && find . -type f | sort)
}

default_of() { # key, as the defaults have it
    sed -n "s/^$1 = \([0-9]*\)$/\1/p" config/default.toml
}

number_in() { # name, file; the first one behind it
    sed -n "s/^ *$1[= ]*\([0-9]*\).*/\1/p" "$2" | head -n 1
}

# Says so where a rule between two numbers does not hold.
holds() { # left, -lt or -eq, right, in words
    [[ -n $1 && -n $3 ]] || fail "a number is missing: $4"
    test "$1" "$2" "$3" || fail "it should be that $4: $1 $2 $3"
}

unit=systemd/coupon-svc-.service.d/10-common.conf
holds $(($(default_of shutdown_timeout_ms) + 1000)) -lt $(($(number_in TimeoutStopSec "$unit") * 1000)) "systemd waits longer than a shutdown may take"
holds $((2 * $(default_of max_connections))) -lt "$(number_in LimitNOFILE "$unit")" "there are files for twice the connections"
nginx=docker/nginx/coupon-svc.conf
holds "$(default_of request_timeout_ms)" -lt "$(number_in proxy_read_timeout "$nginx")" "nginx waits longer than an answer may take"
holds $(($(number_in '    keepalive_timeout' "$nginx") * 1000)) -lt "$(default_of keep_alive_ms)" "nginx closes idle connections before the service does"
holds $(($(number_in client_max_body_size "$nginx") * 1024)) -eq "$(default_of body_limit_bytes)" "nginx takes bodies as large as the service does"
holds $(($(number_in client_header_timeout "$nginx") * 1000)) -eq "$(default_of header_timeout_ms)" "nginx is as patient with heads as the service"

if nginx_program=$(PATH=$PATH:/usr/sbin command -v nginx); then
    sed -e "s|/var/log/nginx/|$root/|" -e 's/listen 80 /listen 127.0.0.1:8080 /' "$nginx" >"$root/coupon-svc.conf"
    temporary=$(printf "%s_temp_path $root/tmp; " client_body proxy fastcgi uwsgi scgi)
    echo "pid $root/pid; error_log $root/error.log; events {} http { $temporary include $root/coupon-svc.conf; }" >"$root/nginx.conf"
    "$nginx_program" -q -t -p "$root" -c "$root/nginx.conf" >"$log" 2>&1 || fail "nginx does not take $nginx"
else
    echo "install-check: there is no nginx here: it did not read $nginx"
fi

# The first installation.
one=$root/one
mkdir "$one"
run "$one" install
has "$one/usr/local/bin/coupon-svc" 755
for unit in coupon-svc-api.service coupon-svc-api@.service coupon-svc-consumer.service coupon-svc-consumer@.service \
    coupon-svc-.service.d/10-common.conf; do
    has "$one/usr/local/lib/systemd/system/$unit" 644
done
has "$one/usr/local/share/coupon-svc/coupon-svc.toml" 644
has "$one/usr/local/share/coupon-svc/coupon-svc.env" 644
has "$one/usr/local/share/coupon-svc/nginx.conf" 644
has "$one/etc/coupon-svc/coupon-svc.toml" 644
has "$one/etc/coupon-svc/coupon-svc.env" 600

if command -v systemd-analyze >/dev/null; then
    # What the units lean on, as good as empty: the folder is a whole host to systemd-analyze.
    base=$one/usr/lib/systemd/system
    mkdir -p "$base"
    for target in sysinit basic shutdown multi-user network-online nss-lookup; do echo "[Unit]" >"$base/$target.target"; done
    for unit in coupon-svc-api.service coupon-svc-api@2.service coupon-svc-consumer.service coupon-svc-consumer@2.service; do
        systemd-analyze --root="$one" --man=no verify "$unit" >"$log" 2>&1 || fail "systemd does not take $unit"
        [[ ! -s $log ]] || fail "systemd has something to say of $unit"
        # An exposure of 2.0 at most: without the drop-in it is 9.6. What is left is explained in docs/production.md.
        systemd-analyze --root="$one" --offline=true --threshold=20 --no-pager security "$unit" >"$log" 2>&1 || fail "$unit is more exposed than 2.0"
    done
    rm -r "$one/usr/lib"
else
    echo "install-check: there is no systemd-analyze here: the units were not read by systemd"
fi

# A second one: new binary and units, the operator's files as they were.
echo 'parts = "distributed"' >"$one/etc/coupon-svc/coupon-svc.toml"
echo 'COUPON__KAFKA__SASL_PASSWORD=kept' >"$one/etc/coupon-svc/coupon-svc.env"
echo old >"$one/usr/local/bin/coupon-svc"
run "$one" install
cmp -s /bin/true "$one/usr/local/bin/coupon-svc" || fail "the binary was not replaced"
grep -qx 'parts = "distributed"' "$one/etc/coupon-svc/coupon-svc.toml" || fail "the configuration was overwritten"
grep -qx 'COUPON__KAFKA__SASL_PASSWORD=kept' "$one/etc/coupon-svc/coupon-svc.env" || fail "the secrets were overwritten"
has "$one/etc/coupon-svc/coupon-svc.env" 600

# Taken away: the operator's files stay, nothing else.
mkdir -p "$one/usr/local/lib/systemd/system/coupon-svc-.service.d"
echo '[Service]' >"$one/usr/local/lib/systemd/system/coupon-svc-.service.d/50-local.conf"
run "$one" uninstall
left=$(files_under "$one" | xargs)
[[ $left == "./etc/coupon-svc/coupon-svc.env ./etc/coupon-svc/coupon-svc.toml ./usr/local/lib/systemd/system/coupon-svc-.service.d/50-local.conf" ]] ||
    fail "uninstall left $left"
run "$one" uninstall

# Another prefix: the units name it, at a place where systemd looks.
two=$root/two
mkdir "$two"
run "$two" install PREFIX=/opt/coupon
has "$two/opt/coupon/bin/coupon-svc" 755
grep -q '^ExecStart=/opt/coupon/bin/coupon-svc --role api ' "$two/etc/systemd/system/coupon-svc-api.service" || fail "the unit names another binary"
run "$two" uninstall PREFIX=/opt/coupon
left=$(files_under "$two" | xargs)
[[ $left == "./etc/coupon-svc/coupon-svc.env ./etc/coupon-svc/coupon-svc.toml" ]] || fail "uninstall left $left"

# A missing binary installs nothing.
three=$root/three
mkdir "$three"
if env BINARY=/nowhere/coupon-svc DESTDIR="$three" scripts/install.sh install >"$log" 2>&1; then fail "a missing binary was installed"; fi
[[ -z $(files_under "$three") ]] || fail "a missing binary left files"

echo "install-check: passed"
