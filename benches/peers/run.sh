#!/bin/sh
# The offline jobs of ours beside DuckDB's and Polars', at one size and at ten times it.
#   benches/peers/run.sh [EVENTS=1000000] [RUNS=3]
# Needs Rust, Python 3 with venv, /usr/bin/time. Everything made is kept under $ASOF_BENCH (default ~/.cache/asof-bench).
set -eu
cd "$(dirname "$0")/../.."
events=${1:-1000000} runs=${2:-3}
export ASOF_BENCH="${ASOF_BENCH:-$HOME/.cache/asof-bench}"
python="$ASOF_BENCH/venv/bin/python"
[ -x /usr/bin/time ] || { echo "/usr/bin/time is missing: apt-get install time" >&2; exit 1; }
[ -x "$python" ] || python3 -m venv "$ASOF_BENCH/venv"
"$python" -m pip install -q -r benches/peers/requirements.txt
asof=$(cargo bench --bench asof --no-run --message-format json | sed -n '/"kind":\["bench"\]/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -n "$asof" ] || { echo "cargo named no bench binary" >&2; exit 1; }
for size in "$events" "$((events * 10))"; do
  labels=$((size / 10))
  [ -f "$ASOF_BENCH/data/labels_$labels.parquet" ] && [ -f "$ASOF_BENCH/data/events_$size.parquet" ] ||
    "$python" benches/peers/gen.py "$ASOF_BENCH/data" "$size" "$labels"
  "$asof" load "$size"
  "$python" benches/peers/compare.py "$asof" "$size" "$labels" -n "$runs"
done
