#!/usr/bin/env bash
# Kafka's own command line tools against the local stack's broker, for instance:
#   scripts/kafka.sh topics --list
#   scripts/kafka.sh groups --describe --group coupon-consumer
#   scripts/kafka.sh console-consumer --topic coupon-issue --from-beginning --max-messages 5 --property print.key=true
# BOOTSTRAP names another broker (default 127.0.0.1:19092).
set -euo pipefail

HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=scripts/stack/lib.sh
source "$HERE/stack/lib.sh"
# shellcheck source=scripts/stack/tls.sh
source "$HERE/stack/tls.sh"
# shellcheck source=scripts/stack/install.sh
source "$HERE/stack/install.sh"

server_option=--bootstrap-server
case ${1:-help} in
    topics) tool=org.apache.kafka.tools.TopicCommand ;;
    groups) tool=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    configs) tool=kafka.admin.ConfigCommand ;;
    offsets) tool=org.apache.kafka.tools.GetOffsetShell ;;
    delete-records) tool=org.apache.kafka.tools.DeleteRecordsCommand ;;
    console-consumer) tool=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    console-producer) tool=kafka.tools.ConsoleProducer ;;
    dump-log) tool=kafka.tools.DumpLogSegments server_option='' ;;
    *)
        echo "usage: scripts/kafka.sh topics|groups|configs|offsets|delete-records|console-consumer|console-producer|dump-log OPTIONS..." >&2
        exit 64
        ;;
esac
shift

# The stack may run in containers, where nothing was downloaded; then, and on a fresh machine, get the jars first.
if [[ ! -d $KAFKA_LIBS ]]; then
    DB=mariadb install_missing >&2
fi

options=()
if [[ -n $server_option ]]; then options=("$server_option" "${BOOTSTRAP:-127.0.0.1:$KAFKA_PORT}"); fi
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
cat >"$settings" <<'CONF'
log4j.rootLogger=ERROR, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.Target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %m (%c)%n
CONF
java -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j.configuration="file:$settings" -cp "$KAFKA_LIBS/*" "$tool" ${options[@]+"${options[@]}"} "$@"
