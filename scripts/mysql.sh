#!/usr/bin/env bash
# MySQL's own command line tools against the local stack's database, for instance:
#   scripts/mysql.sh mysql --execute='SHOW TABLES' coupon
#   scripts/mysql.sh mysqldump --single-transaction --no-tablespaces --set-gtid-purged=OFF coupon >backup.sql
#   scripts/mysql.sh mysql coupon <backup.sql
set -euo pipefail

HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/stack/lib.sh
source "$HERE/stack/lib.sh"
# shellcheck source=scripts/stack/install.sh
source "$HERE/stack/install.sh"
# shellcheck source=scripts/stack/servers.sh
source "$HERE/stack/servers.sh"

program=${1:-help}
case $program in
    mysql | mysqldump) shift ;;
    *)
        echo "usage: scripts/mysql.sh mysql|mysqldump OPTIONS..." >&2
        exit 64
        ;;
esac
# The stack may run in containers, where nothing was downloaded; then, and on a fresh machine, get the programs first.
if [[ ! -d $MYSQL_ROOT ]]; then DB=mysql install_missing >&2; fi
mysql_command "usr/bin/$program"
export MYSQL_PWD=coupon
exec "${MYSQL_COMMAND[@]}" --no-defaults --character-sets-dir="$MYSQL_ROOT/usr/share/mysql/charsets" \
    --protocol=tcp --host=127.0.0.1 --port="$MYSQL_PORT" --user=coupon --ssl-mode=DISABLED --get-server-public-key "$@"
