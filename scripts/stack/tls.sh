# shellcheck shell=bash
# One certificate for the secured listeners of every checkout's stack, kept beside the downloads, so that a stack of another
# checkout is trusted too. Its authority's key is thrown away: nothing else can ever be signed by it.

TLS_DIR=$CACHE/tls

# The folder is the user's alone; the files in it are readable to all, for the users that servers in containers run as.
make_certificate() {
    [[ -d $TLS_DIR ]] && return 0
    local fresh=$TLS_DIR.new log=$CACHE/tls.log
    rm -rf "$fresh"
    mkdir -p -m 700 "$fresh"
    if ! (
        set -e
        cd "$fresh"
        key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
        openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 3650 -subj "/CN=coupon stack authority"
        openssl req "${key[@]}" -keyout server.key -out server.csr -subj "/CN=coupon stack"
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 3650 \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
        # Kafka wants both in one file.
        cat server.key server.pem >server.both.pem
        rm ca.key server.csr ca.srl
        chmod 644 ./*
    ) >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "openssl could not make a certificate (whole log: $log)"
    fi
    mv "$fresh" "$TLS_DIR"
}

# For a caller that does not hold the lock of the downloads.
install_certificate() {
    [[ -d $TLS_DIR ]] && return 0
    mkdir -p "$CACHE"
    command -v openssl >/dev/null || die "there is no openssl to make a certificate with"
    exec {cache_lock}>"$CACHE/lock"
    flock "$cache_lock"
    make_certificate
    exec {cache_lock}>&-
}
