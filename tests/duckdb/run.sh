#!/bin/sh
# Compares the `asof` binary with DuckDB (check.py). Needs python3 with venv; makes its own environment with the pinned packages and keeps
# it for the next run. ASOF_BIN names the binary (default: target/debug/asof), ASOF_TEST_CACHE where the environment is kept.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
cache=${ASOF_TEST_CACHE:-$HOME/.cache/asof-tests}
venv=$cache/venv

ASOF_BIN=${ASOF_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/asof}
if [ ! -x "$ASOF_BIN" ]; then
    echo "tests/duckdb: no binary at $ASOF_BIN: run \`cargo build\`, or name one by ASOF_BIN" >&2
    exit 1
fi
export ASOF_BIN

if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "tests/duckdb: python3 with its venv module is missing (Debian and Ubuntu: apt install python3-venv)" >&2
    exit 1
fi
# The stamp is written last, so that an interrupted installation is done again.
stamp=$venv/installed.txt
if ! cmp -s "$here/requirements.txt" "$stamp"; then
    mkdir -p "$cache"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$stamp"
fi
exec "$venv/bin/python" "$here/check.py" "$@"
