#!/usr/bin/env bash
# Deliberate defects, one line each, and the test that must catch each of them: `seeded_bug("name")` in the sources, one row here.
#
# One build holds them all (`--cfg asof_bugs`, for the crates of this workspace alone, so that no dependency is compiled again) and
# ASOF_BUG switches one on. A test counts as catching a defect when it passes without it and reports a failure with it: a test that does
# not run, or a process that dies without a verdict, catches nothing. A defect in the sources without a row here fails too.
# Closes with `bugs: N passed; N failed`. `tests/bugs/run.sh NAME...` runs some.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root" || exit 1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
export RUSTC_WORKSPACE_WRAPPER="$here/rustc.sh"
export CARGO_TERM_COLOR=never
unset ASOF_BUG ASOF_SLT_MODE ASOF_SLT_BLESS ASOF_RANDOM_SEED ASOF_RANDOM_FIRST

# defect                 binary    test                                         scripts
table="
block-merged-twice       udfs      aggregates::tests                            -
distinct-bit-kept        udfs      aggregates::tests                            -
min-edge-dropped         udfs      aggregates::tests                            -
range-start              udfs      aggregates::tests                            -
strict-ignored           udfs      aggregates::tests                            -
ttl-edge                 udfs      aggregates::tests                            -
variance-rounded-twice   udfs      exact_sum::tests                             -
evict-edge               udfs      aggregates::tests                            -
late-boundary            asof      stream::watermark::tests                     -
duplicate-applied        asof      stream::dedupe::tests                        -
checkpoint-forgets-version it      checkpoints::a_view_begins_from_its_checkpoint  -
conflict-keeps-both      it        slt::scripts                                 enrichment/ties_conflicts
evicted-answered         it        slt::scripts                                 serving/
history-read-short       it        slt::scripts                                 windows/range
late-right-ignored       it        slt::scripts                                 enrichment/inclusive
rejected-unsaid          it        slt::scripts                                 streams/rejected
restart-forgets-lateness it        slt::scripts                                 streams/late
sweep-equal-left-out     it        slt::scripts                                 windows/range
token-forgotten          it        slt::scripts                                 streams/copy
"

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

if ! cargo test --locked --workspace --features kafka-tls --lib --test it --no-run >"$log" 2>&1; then
    cat "$log" >&2
    echo "bugs: 0 passed; 1 failed (no build)"
    exit 1
fi
declare -A binary folder=([udfs]=$root/udfs [asof]=$root [it]=$root)
while read -r path; do
    case ${path##*/} in
    asof_udfs-*) binary[udfs]=$(realpath "$path") ;;
    asof-*) binary[asof]=$(realpath "$path") ;;
    it-*) binary[it]=$(realpath "$path") ;;
    esac
done < <(sed -nE 's/^ *Executable .* \((.*)\)$/\1/p' "$log")

# verdict BUG BINARY TEST SCRIPTS: runs the test with a defect on (- for none); prints ok, FAILED, or nothing where it gave no verdict.
verdict() {
    local -a environment=()
    [ "$1" = - ] || environment+=("ASOF_BUG=$1")
    [ "$4" = - ] || environment+=("ASOF_SLT=$4")
    (cd "${folder[$2]}" && env "${environment[@]}" "${binary[$2]:-/nonexistent}" "$3" >"$log" 2>&1)
    # A run of no test has no verdict.
    sed -nE 's/^test result: (ok|FAILED)\. ([0-9]+) passed; ([0-9]+) failed.*/\1 \2 \3/p' "$log" | awk '$2 + $3 > 0 { print $1 }'
}

caught=0
missed=0
declare -A sound seen
while read -r bug in test scripts; do
    [ -n "$bug" ] || continue
    seen[$bug]=1
    if [ $# -gt 0 ] && [[ " $* " != *" $bug "* ]]; then
        continue
    fi
    key="$in $test $scripts"
    if [ -z "${sound[$key]:-}" ]; then
        sound[$key]=$(verdict - "$in" "$test" "$scripts")
        [ "${sound[$key]}" = ok ] || { tail -n 20 "$log"; echo "$key: does not pass without a defect"; }
    fi
    if [ "${sound[$key]}" = ok ] && [ "$(verdict "$bug" "$in" "$test" "$scripts")" = FAILED ]; then
        caught=$((caught + 1))
        echo "caught   $bug ($test ${scripts/#-/all})"
    else
        missed=$((missed + 1))
        echo "MISSED   $bug ($key)"
    fi
done <<<"$table"

while read -r bug; do
    if [ -z "${seen[$bug]:-}" ]; then
        missed=$((missed + 1))
        echo "MISSED   $bug (no row in tests/bugs/run.sh)"
    fi
done < <(grep -rhoE 'seeded_bug\("[a-z-]+"\)' src udfs/src sql/src | sed -E 's/.*"(.*)".*/\1/' | sort -u)

echo "bugs: of $((caught + missed)) defects $caught passed; $missed failed"
[ "$missed" -eq 0 ]
