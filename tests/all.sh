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
# Servers wait about as much as they work. Each has thirteen of root's inotify instances, and four may run beside those of the
# tests: three that wait for a test, and a second one of a test.
if [ -z "${RUST_TEST_THREADS:-}" ]; then
  threads=$(($(nproc) * 3))
  used=$(find /proc/[0-9]*/fd -lname anon_inode:inotify 2>/dev/null | wc -l || true)
  most=$((($(cat /proc/sys/fs/inotify/max_user_instances) - used) / 13 - 4))
  [ $threads -le $most ] || threads=$most
  [ $threads -gt 0 ] || threads=1
  export RUST_TEST_THREADS=$threads
fi
exec cargo test --locked "$@" -- --include-ignored
