#!/bin/bash
# Measures homelab beside docker compose and beside the bare calls of the Engine's API, in the virtual home. Debian, as root;
# makes what it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh trixie
PATH=$PATH:~/.cargo/bin
cargo build --release --locked
exec cargo run --quiet --locked --example bench -- target/release/homelab
