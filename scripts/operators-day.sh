#!/usr/bin/env bash
# Carries out docs/operators-day.md as it stands: its `sh` blocks in one shell, one after another; each line of a `text` block must be found in what
# the blocks since the last one printed, `*` for anything. Exit code 1 at the first that is not so. Needs what `make stage` needs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
page=docs/operators-day.md
work=$(mktemp -d)

leave() {
    local status=$?
    # What failed may have been a block, whose output goes into a file.
    exec >&5 2>&6
    if [[ -s $work/out ]]; then cat "$work/out" >&2; fi
    if ((status)) && [[ -e .stage/plan/parts ]]; then scripts/stage.sh down >/dev/null 2>&1 || true; fi
    rm -rf "$work"
    ((status == 0)) || echo "operators-day: FAILED, see above" >&2
    exit "$status"
}
exec 5>&1 6>&2
trap leave EXIT

# NN.sh and NN.text, in the order of the page; the heading above each in NN.heading.
awk -v to="$work" '
    /^```(sh|text)$/ { kind = substr($0, 4); file = sprintf("%s/%02d.%s", to, ++count, kind); printf "" >file; print heading >(file ".heading"); next }
    /^```$/ { kind = ""; close(file); next }
    kind { print >file; next }
    /^#+ / { heading = $0; sub(/^#+ /, "", heading) }
' "$page"

# Whether a line of $1 begins with the pattern, or has it behind anything but a digit: 10 is not found in 110.
printed() { # text, pattern
    local line
    while read -r line; do
        # shellcheck disable=SC2053 # the page's `*` is meant as a pattern
        if [[ $line == $2* || $line == *[!0-9]$2* ]]; then return 0; fi
    done <<<"$1"
    echo "not printed: $2" >&2
    return 1
}

said=''
for block in "$work"/*.sh "$work"/*.text; do echo "$block"; done | sort >"$work/blocks"
while IFS= read -r block <&3; do
    if [[ $block == *.text ]]; then
        while IFS= read -r pattern; do printed "$said" "$pattern"; done <"$block"
        said=''
        continue
    fi
    printf '\n== %s\n' "$(<"$block.heading")"
    sed 's/^/  $ /' "$block"
    # In this shell: what a block defines, the next ones use.
    # shellcheck source=/dev/null
    source "$block" >"$work/out" 2>&1
    out=$(<"$work/out")
    printf '%s\n' "$out"
    said+=$out$'\n'
    : >"$work/out"
done 3<"$work/blocks"
echo
echo "operators-day: every command was carried out, and each said what the page says"
