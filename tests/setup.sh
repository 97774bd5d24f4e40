#!/bin/bash
# Makes what demo and tests need, on Debian, as root: packages, and the roots of the virtual home's servers under target/.
#   setup.sh SUITE...
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "the virtual home is made of namespaces and Debian roots: run this as root" >&2
  exit 1
fi
# A login shell would have it.
PATH=$PATH:~/.cargo/bin
command -v cargo >/dev/null || { echo "cargo is missing: install the Rust toolchain, https://rustup.rs" >&2; exit 1; }

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need cc gcc
need cc libc6-dev
need debootstrap debootstrap
need ip iproute2
need busybox busybox-static
need setpriv util-linux
need patchelf patchelf
need nsenter util-linux
need losetup mount
need mkfs.ext4 e2fsprogs
need perl perl-base
# The servers' images are made of it, so it must need no libraries.
if command -v ldd >/dev/null && command -v busybox >/dev/null && ldd "$(command -v busybox)" >/dev/null 2>&1; then
  missing+=(busybox-static)
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

for suite in "$@"; do
  [ -d "target/lab/$suite" ] || echo "building the root of a $suite server, once, about a minute" >&2
  tests/lab/root.sh "$suite" "target/lab/$suite"
done
