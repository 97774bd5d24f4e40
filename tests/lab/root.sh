#!/bin/bash
# Builds a Debian root for a virtual home server: systemd, Docker Engine and a busybox to make images from.
#   root.sh SUITE DIR     bookworm: engine 20.10, trixie: 26.1, sid: 28.5; about a minute each
# DIR appears only when it is complete, so an interrupted build is made again.
set -euo pipefail
suite=$1 root=$2
[ -d "$root" ] && exit 0
mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
[ -d "$root" ] && exit 0

part=$root.part log=$root.log
# A build that was killed leaves what debootstrap mounted.
for mounted in "$part/proc" "$part/sys"; do ! mountpoint -q "$mounted" || umount "$mounted"; done
rm -rf --one-file-system "$part"
# The mirror that this machine uses for its own packages, else debootstrap's default one.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null | grep -v security | head -n 1 || true)
packages=systemd,systemd-sysv,dbus,docker.io,iproute2,iputils-ping,iputils-arping,ca-certificates,jq,curl,make,udev,kmod,tcpdump,nftables,docker-registry,dhcpcd
# Sid has no network-manager at times.
[ "$suite" = sid ] || packages=$packages,network-manager
{
  # shellcheck disable=SC2086  # no mirror means no argument
  debootstrap --variant=minbase --include="$packages" "$suite" "$part" $mirror
  # From trixie on the client and Compose are packages of their own.
  [ "$suite" = bookworm ] || chroot "$part" apt-get install -y --no-install-recommends docker-cli docker-compose
  chroot "$part" systemctl mask console-getty.service getty.target systemd-logind.service systemd-timesyncd.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    systemd-sysctl.service systemd-modules-load.service systemd-udev-trigger.service
  # A registry for the test that pulls, and network managers: the tests that are about them start them.
  chroot "$part" systemctl disable docker-registry.service dhcpcd.service
  [ "$suite" = sid ] || chroot "$part" systemctl disable NetworkManager.service NetworkManager-dispatcher.service \
    NetworkManager-wait-online.service
  chroot "$part" apt-get clean
  rm -rf "$part"/var/lib/apt/lists/*
} >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "the root for $suite could not be built; all of it is in $log" >&2; exit 1; }

# What images for tests are made of: there is no registry in the virtual home.
mkdir -p "$part/srv/image/bin"
cp "$(command -v busybox)" "$part/srv/image/bin/busybox"
for applet in sh ping nc httpd ip sleep wget cat ls echo arping hostname true false nslookup id env touch mkdir test printf; do
  ln -s busybox "$part/srv/image/bin/$applet"
done
mv "$part" "$root"
