#!/bin/bash
# A home server: systemd as PID 1, Docker Engine and cgroup v2, in namespaces of its own. Stays in the foreground as long
# as the server runs, and takes everything in it along when it is killed.
#   node.sh ROOT LAYER DIR PID     boot ROOT, with LAYER over it, in the network namespace of process PID; what it writes goes to DIR,
#                                  into the file system of the image DIR/disk when there is one
set -euo pipefail

if [ "$1" != inside ]; then
  root=$(realpath "$1") layer=$(realpath "$2") dir=$(realpath "$3") pid=$4
  cgroup=/sys/fs/cgroup/unified
  [ -d "$cgroup" ] || cgroup=/sys/fs/cgroup
  cgroup=$cgroup/homelab-lab-$$
  mkdir "$cgroup"
  echo "$cgroup" >"$dir/cgroup"
  echo $$ >"$cgroup/cgroup.procs"
  # The parent is whoever asked for the server: when it dies, so does the server.
  exec setpriv --pdeathsig KILL nsenter --net=/proc/"$pid"/ns/net \
    unshare --mount --pid --fork --uts --ipc --cgroup --kill-child --propagation private bash "$0" inside "$root" "$layer" "$dir"
fi

root=$2 layer=$3 dir=$4
# What a server may not do that is as an unprivileged container: see forbid.pl.
forbidden=
[ ! -e "$dir/forbid.pl" ] || forbidden=$(cat "$dir/forbid.pl")
if [ -e "$dir/disk" ]; then
  # The loop device of a server that was just switched off goes with its last process: two of them would spoil the disk. Nothing
  # reaches it but what is synced (ext4(5), `commit`).
  until [ -z "$(losetup -j "$dir/disk")" ]; do sleep 0.02; done
  mkdir -p "$dir/mounted"
  mount -o loop,commit=600 "$dir/disk" "$dir/mounted"
  dir=$dir/mounted
fi
mkdir -p "$dir"/{upper,work,merged,docker,containerd}
new=$dir/merged
# The engine's own overlays cannot lie on another one, so its folders are real ones.
mount -t overlay -o "lowerdir=$layer:$root,upperdir=$dir/upper,workdir=$dir/work" overlay "$new" ||
  { [ -e "$new/etc" ] || cp -a "$root/." "$layer/." "$new"; mount --bind "$new" "$new"; }
cd "$new"
for folder in docker containerd; do
  mkdir -p var/lib/$folder
  mount --bind "$dir/$folder" var/lib/$folder
done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
# Generators make units for disks, terminals and swap at every reload; the home has none of these.
mkdir -p run/systemd/system-generators
for generator in usr/lib/systemd/system-generators/*; do
  ln -s /dev/null "run/systemd/system-generators/${generator##*/}"
done
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  touch dev/$device
  mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old
hostname server
echo server >/etc/hostname
forbid=()
[ -z "$forbidden" ] || forbid=(perl -e "$forbidden")
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin "${forbid[@]}" \
  /lib/systemd/systemd --system --log-target=journal --show-status=0
