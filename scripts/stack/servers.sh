# shellcheck shell=bash
# How each server is configured, started, and asked whether it is well.

# --- Redis -----------------------------------------------------------------------------------------------------------------

launch_redis() {
    local folder=$STATE/redis
    mkdir -p "$folder/data"
    # The title is left alone so that `down` can recognise the process by its folder.
    cat >"$folder/redis.conf" <<CONF
bind 127.0.0.1
port $REDIS_PORT
tls-port $REDIS_TLS_PORT
tls-cert-file "$TLS_DIR/server.pem"
tls-key-file "$TLS_DIR/server.key"
tls-ca-cert-file "$TLS_DIR/ca.pem"
tls-auth-clients no
dir "$folder/data"
appendonly yes
appendfsync everysec
save ""
maxmemory 512mb
maxmemory-policy noeviction
maxclients 10000
enable-debug-command local
set-proc-title no
CONF
    launch redis redis-server "$folder/redis.conf"
}

healthy_redis() {
    [[ $(timeout 3 redis-cli -h 127.0.0.1 -p "$REDIS_PORT" ping 2>/dev/null) == PONG ]] && port_is_open "$REDIS_TLS_PORT"
}

version_redis() {
    timeout 3 redis-cli -h 127.0.0.1 -p "$REDIS_PORT" info server 2>/dev/null | tr -d '\r' | sed -n 's/^redis_version:/Redis /p'
}

# --- Kafka -----------------------------------------------------------------------------------------------------------------

# A KRaft cluster id: 16 random bytes in URL-safe base64.
random_cluster_id() {
    local id=-
    while [[ $id == -* ]]; do
        id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    done
    echo "$id"
}

# All brokers of a cluster are formatted with one id.
cluster_id() {
    local file=$STATE/kafka-cluster-id
    (
        flock 9
        [[ -s $file ]] || random_cluster_id >"$file"
    ) 9>"$file.lock"
    cat "$file"
}

launch_kafka_part() { # part
    local part=$1 folder=$STATE/$1 other voters='' replicas
    local port proxied proxy controller secured
    port=$(kafka_port "$part" "") proxied=$(kafka_port "$part" PROXIED_) proxy=$(kafka_port "$part" PROXY_)
    controller=$(kafka_port "$part" CONTROLLER_) secured=$(kafka_port "$part" SECURED_)
    for other in $(kafka_parts); do
        voters+=${voters:+,}$(broker_id "$other")@127.0.0.1:$(kafka_port "$other" CONTROLLER_)
    done
    replicas=$(kafka_parts | wc -l)
    mkdir -p "$folder"
    # PROXIED is for tests that cut the broker off: they listen on the advertised port and forward to the real one.
    # SECURED knows the user `coupon` by every mechanism; the users of SCRAM are kept in the cluster's own log (settle_kafka).
    cat >"$folder/server.properties" <<CONF
process.roles=broker,controller
node.id=$(broker_id "$part")
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$proxied,SECURED://127.0.0.1:$secured,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$proxy,SECURED://127.0.0.1:$secured
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SECURED:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location=$TLS_DIR/server.both.pem
listener.name.secured.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_coupon="coupon";
listener.name.secured.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=$folder/data
auto.create.topics.enable=false
unclean.leader.election.enable=false
min.insync.replicas=$((replicas > 1 ? 2 : 1))
log.retention.ms=-1
# What is deleted goes at once, not a minute later beside whatever is measured then.
log.segment.delete.delay.ms=100
# A broker that shares a few cores with everything else: more threads only take turns.
num.network.threads=1
num.io.threads=2
log.cleaner.dedupe.buffer.size=8388608
offsets.topic.num.partitions=5
offsets.topic.replication.factor=$replicas
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
group.initial.rebalance.delay.ms=0
CONF
    start_broker "$part" -Xms512m -Xmx512m
}

# Starts a broker whose server.properties is written; formats its folder before the first time.
start_broker() { # part, options of Java...
    local part=$1 folder=$STATE/$1
    shift
    cat >"$folder/log4j.properties" <<'CONF'
log4j.rootLogger=INFO, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
log4j.logger.org.apache.kafka.common.config=WARN
log4j.logger.kafka.server.KafkaConfig=WARN
log4j.logger.org.apache.zookeeper=WARN
CONF
    if [[ ! -e $folder/data/meta.properties ]]; then
        if ! java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j.configuration="file:$folder/log4j.properties" -cp "$KAFKA_LIBS/*" \
            kafka.tools.StorageTool format -t "$(cluster_id)" -c "$folder/server.properties" \
            >>"$folder/$part.log" 2>&1 </dev/null; then
            log_tail "$part"
            say "$part" "FAILED: its data folder could not be formatted" >&2
            return 1
        fi
    fi
    launch "$part" java "$@" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true \
        -Dlog4j.configuration="file:$folder/log4j.properties" -cp "$KAFKA_LIBS/*" kafka.Kafka "$folder/server.properties"
}

# One request may name a user once only.
make_scram_users() { # command of kafka-configs...
    local mechanism
    for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
        "$@" --alter --entity-type users --entity-name coupon --add-config "$mechanism=[password=coupon]" </dev/null || return 1
    done
}

# Makes the users of SCRAM once for each data folder, also for one that is older than the secured listener.
settle_kafka() {
    local folder=$STATE/kafka
    [[ -e $folder/data/scram-users ]] && return 0
    if ! make_scram_users java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j.configuration="file:$folder/log4j.properties" \
        -cp "$KAFKA_LIBS/*" kafka.admin.ConfigCommand --bootstrap-server "127.0.0.1:$(port_of kafka)" >>"$folder/kafka.log" 2>&1; then
        log_tail kafka
        say kafka "FAILED: the users of SCRAM could not be made" >&2
        return 1
    fi
    touch "$folder/data/scram-users"
}

healthy_kafka_part() { # part
    timeout 4 "$ROOT/docker/kafka/answers.sh" 127.0.0.1 "$(port_of "$1")" 2>/dev/null && port_is_open "$(kafka_port "$1" SECURED_)"
}

launch_kafka() { launch_kafka_part kafka; }
launch_kafka-2() { launch_kafka_part kafka-2; }
launch_kafka-3() { launch_kafka_part kafka-3; }
healthy_kafka() { healthy_kafka_part kafka; }
healthy_kafka-2() { healthy_kafka_part kafka-2; }
healthy_kafka-3() { healthy_kafka_part kafka-3; }
version_kafka() { echo "Kafka $KAFKA_VERSION"; }
version_kafka-2() { version_kafka; }
version_kafka-3() { version_kafka; }

# --- MySQL and MariaDB -----------------------------------------------------------------------------------------------------

# Runs a program of the unpacked Debian with that Debian's own libraries; no chroot, so paths mean what they say.
mysql_command() { # program below MYSQL_ROOT, arguments...
    local loader
    loader=$(compgen -G "$MYSQL_ROOT/usr/lib/*/ld-linux*.so.*" | head -n 1)
    MYSQL_COMMAND=("$loader" --library-path "$(dirname "$loader"):$MYSQL_ROOT/usr/lib/mysql/private" "$MYSQL_ROOT/$1" "${@:2}")
}

# A socket path may have 107 characters at most; a checkout deep in a tree has longer ones.
socket_path() { # part
    local path=$STATE/$1/server.sock
    if ((${#path} > 100)); then path=/tmp/coupon-stack-$EUID-$(port_of "$1").sock; fi
    echo "$path"
}

# The user and its grants are made at every start, before the server takes connections.
write_database_files() { # part
    local folder=$STATE/$1
    mkdir -p "$folder/tmp"
    cat >"$folder/my.cnf" <<CONF
!include $ROOT/docker/mysql/coupon.cnf

[mysqld]
bind-address = 127.0.0.1
port         = $(port_of "$1")
datadir      = $folder/data
tmpdir       = $folder/tmp
socket       = $(socket_path "$1")
pid-file     = $folder/server.pid
init-file    = $ROOT/docker/mysql/grants.sql
ssl-ca       = $TLS_DIR/ca.pem
ssl-cert     = $TLS_DIR/server.pem
ssl-key      = $TLS_DIR/server.key
CONF
    if ((EUID == 0)); then printf 'user         = root\n' >>"$folder/my.cnf"; fi
}

# An initialisation that was cut short is done again from the start: it becomes `data` only when it is whole.
initialise_database() { # part, command that fills the folder named by the last argument...
    local part=$1 folder=$STATE/$1
    shift
    [[ -d $folder/data ]] && return 0
    rm -rf "$folder/data.new"
    mkdir -p "$folder/data.new"
    if ! "$@" --datadir="$folder/data.new" >>"$folder/$part.log" 2>&1 </dev/null; then
        log_tail "$part"
        say "$part" "FAILED: its data folder could not be initialised" >&2
        return 1
    fi
    mv "$folder/data.new" "$folder/data"
}

launch_mysql() { # more options of the server...
    local folder=$STATE/mysql program
    write_database_files mysql
    cat >>"$folder/my.cnf" <<CONF
basedir      = $MYSQL_ROOT/usr
plugin-dir   = $MYSQL_ROOT/usr/lib/mysql/plugin
lc-messages-dir    = $MYSQL_ROOT/usr/share/mysql
character-sets-dir = $MYSQL_ROOT/usr/share/mysql/charsets
secure-file-priv   = NULL
mysqlx       = OFF
CONF
    mysql_command usr/sbin/mysqld
    program=("${MYSQL_COMMAND[@]}")
    initialise_database mysql "${program[@]}" --no-defaults --initialize-insecure --basedir="$MYSQL_ROOT/usr" \
        --lc-messages-dir="$MYSQL_ROOT/usr/share/mysql" --character-sets-dir="$MYSQL_ROOT/usr/share/mysql/charsets" \
        --tmpdir="$folder/tmp" "${run_as[@]}" || return 1
    launch mysql "${program[@]}" --defaults-file="$folder/my.cnf" "$@"
}

launch_mariadb_part() { # part
    local folder=$STATE/$1
    write_database_files "$1"
    initialise_database "$1" mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
        --skip-name-resolve --tmpdir="$folder/tmp" "${run_as[@]}" || return 1
    launch "$1" mariadbd --defaults-file="$folder/my.cnf"
}

run_as=()
if ((EUID == 0)); then run_as=(--user=root); fi

launch_mariadb-main() { launch_mariadb_part mariadb-main; }
launch_mariadb() { launch_mariadb_part mariadb; }

# Asks as the service does: over TCP, without TLS, with the service's user and database.
query_mysql() { # SQL
    mysql_command usr/bin/mysql
    timeout 5 "${MYSQL_COMMAND[@]}" --no-defaults --character-sets-dir="$MYSQL_ROOT/usr/share/mysql/charsets" \
        --protocol=tcp --host="${MYSQL_HOST:-127.0.0.1}" --port="$MYSQL_PORT" --user=coupon --ssl-mode=DISABLED --get-server-public-key \
        --batch --skip-column-names --execute="$1" coupon 2>/dev/null < <(:)
}

query_mariadb() { # port, SQL
    MYSQL_PWD=coupon timeout 5 mariadb --no-defaults --protocol=tcp --host=127.0.0.1 --port="$1" --user=coupon \
        --batch --skip-column-names --execute="$2" coupon 2>/dev/null
}

healthy_mysql() { [[ $(MYSQL_PWD=coupon query_mysql 'SELECT 1') == 1 ]]; }
healthy_mariadb-main() { [[ $(query_mariadb "$MYSQL_PORT" 'SELECT 1') == 1 ]]; }
healthy_mariadb() { [[ $(query_mariadb "$MARIADB_PORT" 'SELECT 1') == 1 ]]; }
version_mysql() { echo "MySQL $(MYSQL_PWD=coupon query_mysql 'SELECT VERSION()')"; }
version_mariadb-main() { echo "MariaDB $(query_mariadb "$MYSQL_PORT" 'SELECT VERSION()' | sed 's/-.*//')"; }
version_mariadb() { echo "MariaDB $(query_mariadb "$MARIADB_PORT" 'SELECT VERSION()' | sed 's/-.*//')"; }

healthy() { "healthy_$1"; }
