# shellcheck shell=bash
# For a script that uses the stack for a while: what its `stack.sh up` started itself, by STACK_STARTED_FILE, is stopped when the
# script ends. KEEP_STACK=1 leaves it running. Sourced, never run.

started=$(mktemp)

finish() {
    local status=$? parts
    mapfile -t parts <"$started"
    rm -f "$started"
    if ((${#parts[@]})); then
        if [[ ${KEEP_STACK:-0} == 1 ]]; then
            echo "the stack keeps running; scripts/stack.sh down stops it"
        else
            scripts/stack.sh down "${parts[@]}" || true
        fi
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
