# For the scripts that measure: binaries, and processes that end with the script. Sourced at the root of the repository.
export ASOF_BENCH="${ASOF_BENCH:-$HOME/.cache/asof-bench}"
: "${ENTITIES:=100000}" "${EVENTS:=1000000}"
data=$ASOF_BENCH/serving/$ENTITIES-$EVENTS
mkdir -p "$data"
started=()

# Ends what was started here, by id, the last first.
stop_all() {
    local i
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do
        kill "${started[i]}" 2>/dev/null || true
        wait "${started[i]}" 2>/dev/null || true
    done
}
trap stop_all EXIT

# binaries ASOF LOAD: sets $asof and $load, building what is `-`.
binaries() {
    asof=$1 load=$2
    if [ "$asof" = - ]; then
        cargo build --release --locked --bin asof
        asof=${CARGO_TARGET_DIR:-target}/release/asof
    fi
    if [ "$load" = - ]; then
        load=$(cargo bench --locked --bench load --no-run --message-format json | sed -n '/"kind":\["bench"\]/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    fi
    [ -x "$asof" ] && [ -x "$load" ] || { echo "no binary at $asof or $load" >&2; exit 1; }
}

# until_ready WHAT PID COMMAND...: waits for a command to succeed, at most a minute, and no longer than the process lives.
until_ready() {
    local what=$1 pid=$2 end=$((SECONDS + 60))
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || { echo "$what ended: see $data" >&2; exit 1; }
        [ $SECONDS -lt $end ] || { echo "$what is not ready after a minute: see $data" >&2; exit 1; }
        sleep 0.1
    done
}

# start_asof: the server on the filled warehouse, at $asof_address. A warehouse whose filling was interrupted is made anew.
start_asof() {
    [ -f "$data/filled" ] || rm -rf "$data/warehouse"
    rm -f "$data/port"
    ASOF_LOG=warn,asof=info "$asof" --warehouse "$data/warehouse" serve --listen 127.0.0.1:0 --port-file "$data/port" 2>"$data/asof.log" &
    asof_pid=$!
    started+=("$asof_pid")
    until_ready "the server" "$asof_pid" test -s "$data/port"
    asof_address=127.0.0.1:$(sed 's/.*://' "$data/port")
    if [ ! -f "$data/filled" ]; then
        "$load" fill "$data" --asof "$asof_address" --entities "$ENTITIES" --events "$EVENTS"
        touch "$data/filled"
    fi
}
