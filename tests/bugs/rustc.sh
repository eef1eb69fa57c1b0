#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of tests/bugs/run.sh: compiles the crates of this workspace, and only these, with the deliberate defects in.
exec "$@" --cfg asof_bugs
