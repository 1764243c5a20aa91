#!/usr/bin/env bash
# Fuzzes the record codec and the rule for SECONDS, starting from the golden log. Needs cargo-fuzz (installed when missing), a C++
# compiler and python3; RUSTC_BOOTSTRAP=1 lets the stable compiler take the sanitizer's flags. What breaks it stays in fuzz/artifacts/.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing: installing it (cargo install cargo-fuzz --locked)"
    cargo install cargo-fuzz --locked
fi

# Seeds: every message of the golden log alone, and the whole log.
corpus=fuzz/corpus/record
mkdir -p "$corpus"
python3 - src/domain/golden/v1.jsonl "$corpus" <<'PYTHON'
import json, pathlib, sys

values = [json.loads(line)["value"].encode() for line in open(sys.argv[1], encoding="utf-8")]
seeds = pathlib.Path(sys.argv[2])
for number, value in enumerate(values, 1):
    (seeds / f"golden-{number:03}").write_bytes(value)
(seeds / "golden-log").write_bytes(b"\n".join(values))
PYTHON

export RUSTC_BOOTSTRAP=1
exec cargo fuzz run record -- -max_total_time="$seconds" -max_len=16384 -timeout=10 -print_final_stats=1
