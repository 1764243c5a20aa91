#!/usr/bin/env bash
# Puts the service on a systemd host, or takes it away: binary, units, examples, and a configuration and a file for secrets where there are
# none yet. What is in /etc/coupon-svc already is never touched, not even by uninstall. Starts, stops and reloads nothing.
#
#   scripts/install.sh install|uninstall
#
#   DESTDIR=                      a folder in front of every path, for packages
#   PREFIX=/usr/local             bin and share
#   SYSCONFDIR=/etc               coupon-svc/coupon-svc.toml, coupon-svc/coupon-svc.env
#   UNITDIR                       PREFIX/lib/systemd/system where systemd looks there, else SYSCONFDIR/systemd/system
#   BINARY=target/release/coupon-svc
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
SYSCONFDIR=${SYSCONFDIR:-/etc}
BINARY=${BINARY:-target/release/coupon-svc}
case $PREFIX in
    /usr | /usr/local) UNITDIR=${UNITDIR:-$PREFIX/lib/systemd/system} ;;
    *) UNITDIR=${UNITDIR:-$SYSCONFDIR/systemd/system} ;;
esac

bin=$PREFIX/bin/coupon-svc
share=$PREFIX/share/coupon-svc
config=$SYSCONFDIR/coupon-svc
units=(coupon-svc-api.service coupon-svc-api@.service coupon-svc-consumer.service coupon-svc-consumer@.service)
drop_in=coupon-svc-.service.d
common=$drop_in/10-common.conf
examples=(coupon-svc.toml coupon-svc.env nginx.conf)

die() {
    echo "install: $*" >&2
    exit 1
}

# Installs a file under its path on the host, in place of an older one. The new one is renamed over the old one: a running binary cannot be
# written to, and nobody reads half a file.
put() { # mode, source, path
    install -D -m "$1" "$2" "$DESTDIR$3.new"
    mv -f "$DESTDIR$3.new" "$DESTDIR$3"
    echo "  $DESTDIR$3"
}

# Installs a file only where there is none.
put_once() { # mode, source, path
    if [[ -e $DESTDIR$3 || -L $DESTDIR$3 ]]; then
        echo "  $DESTDIR$3 is there already and stays as it is"
    else
        put "$@"
    fi
}

# A unit or its drop-in, with the paths of this installation.
put_unit() { # name
    local text
    text=$(mktemp)
    sed -e "s|/usr/local/bin/coupon-svc|$bin|g" -e "s|/etc/coupon-svc/|$config/|g" "systemd/$1" >"$text"
    put 0644 "$text" "$UNITDIR/$1"
    rm -f "$text"
}

install_all() {
    local unit
    [[ -f $BINARY ]] || die "there is no $BINARY: run 'cargo build --release' first, or set BINARY"
    [[ $PREFIX == /* && $SYSCONFDIR == /* && $UNITDIR == /* ]] || die "PREFIX, SYSCONFDIR and UNITDIR must be absolute"
    echo "installed:"
    put 0755 "$BINARY" "$bin"
    for unit in "${units[@]}" "$common"; do put_unit "$unit"; done
    put 0644 config/production.example.toml "$share/coupon-svc.toml"
    put 0644 systemd/coupon-svc.env.example "$share/coupon-svc.env"
    put 0644 docker/nginx/coupon-svc.conf "$share/nginx.conf"
    put_once 0644 config/production.example.toml "$config/coupon-svc.toml"
    put_once 0600 systemd/coupon-svc.env.example "$config/coupon-svc.env"
    cat <<NEXT
next:
  edit $config/coupon-svc.toml and $config/coupon-svc.env
  systemctl daemon-reload
  systemctl enable --now coupon-svc-api.service        (or coupon-svc-consumer.service; docs/production.md tells the rest)
NEXT
}

uninstall_all() {
    local unit example
    rm -f "$DESTDIR$bin" "$DESTDIR$UNITDIR/$common"
    for unit in "${units[@]}"; do rm -f "$DESTDIR$UNITDIR/$unit"; done
    for example in "${examples[@]}"; do rm -f "$DESTDIR$share/$example"; done
    # Only what is empty: an operator's own drop-ins are not ours.
    rmdir "$DESTDIR$UNITDIR/$drop_in" "$DESTDIR$share" 2>/dev/null || true
    echo "removed; $DESTDIR$config stays, with the configuration and the secrets"
    echo "next: systemctl daemon-reload"
}

case ${1:-} in
    install) install_all ;;
    uninstall) uninstall_all ;;
    *)
        echo 'usage: scripts/install.sh install|uninstall' >&2
        exit 64
        ;;
esac
