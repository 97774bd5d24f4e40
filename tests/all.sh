#!/bin/bash
# Passes all tests, those of the virtual home included; makes what they need first. Debian, as root.
#   all.sh [ARGUMENT...]     for `cargo test`, as in: all.sh --test lab engine_26_1
set -euo pipefail
cd "$(dirname "$0")/.."
# The roots take the network's time and the build takes the processor's.
tests/setup.sh bookworm trixie sid &
roots=$!
PATH=$PATH:~/.cargo/bin
if command -v cc >/dev/null && command -v cargo >/dev/null; then cargo build --tests --locked; fi
wait $roots
# Servers wait about as much as they work.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3))}
exec cargo test --locked "$@" -- --include-ignored
