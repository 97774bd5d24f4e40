#!/bin/bash
# Shows the main job in the virtual home, and takes the home away again. Debian, as root; makes what it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh trixie
PATH=$PATH:~/.cargo/bin
cargo build --release --locked
exec cargo run --quiet --locked --example demo -- target/release/homelab
