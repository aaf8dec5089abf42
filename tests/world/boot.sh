#!/bin/bash
# Boots systemd as PID 1 of a box. Runs as the first process of fresh mount, pid, uts, ipc and
# network namespaces (box.py starts it); the order of the steps matters, see the reasons below.
#
# Environment: BOX_STATE (directory of this box; what is in its "nodes" goes to /dev, what is in
# its "files" to /), BOX_NAME, BOX_MACHINE_ID, BOX_LOWERS (lower directories, topmost first; an
# image is IMAGE:SUBDIRECTORY, a plain directory ":DIRECTORY"; separated by blanks),
# BOX_HOME_IMAGE, BOX_HOME_OPTIONS (mount options of the /home image), BOX_HOME_IS_DISK (not
# empty: what is written to the image goes past the page cache).
set -euo pipefail
umask 022

root=$BOX_STATE/root
mkdir -p "$BOX_STATE"/{cgroup,layers,root,top,home}

# The cgroup comes before its namespace: otherwise the namespace is rooted at the shared root and
# two boxes count, and kill, each other's units. Mounted afresh, as the place differs per host.
if [ -z "${BOX_CGROUP_READY:-}" ]; then
    mount -t cgroup2 none "$BOX_STATE/cgroup"
    mkdir -p "$BOX_STATE/cgroup/homemgr-$BOX_NAME"
    echo 0 >"$BOX_STATE/cgroup/homemgr-$BOX_NAME/cgroup.procs"
    umount "$BOX_STATE/cgroup"
    BOX_CGROUP_READY=1 exec unshare -C "$BASH" "$0"
fi

lowers=
number=0
for lower in $BOX_LOWERS; do
    image=${lower%%:*}
    directory=${lower#*:}
    if [ -n "$image" ]; then
        number=$((number + 1))
        mkdir -p "$BOX_STATE/layers/$number"
        mount -o ro,loop "$image" "$BOX_STATE/layers/$number"
        directory=$BOX_STATE/layers/$number/$directory
    fi
    lowers=$lowers${lowers:+:}$directory
done

# A tmpfs on top: throw-away, and quick. /home cannot lie there, as overlayfs cannot be idmapped.
mount -t tmpfs -o mode=755 top "$BOX_STATE/top"
mkdir "$BOX_STATE"/top/{upper,work}
mount -t overlay box -o "lowerdir=$lowers,upperdir=$BOX_STATE/top/upper,workdir=$BOX_STATE/top/work" "$root"
mount --make-private "$root"
mount -o "loop${BOX_HOME_OPTIONS:+,$BOX_HOME_OPTIONS}" "$BOX_HOME_IMAGE" "$root/home"
if [ -n "$BOX_HOME_IS_DISK" ]; then
    losetup --direct-io=on "$(findmnt -nro SOURCE "$root/home")"
fi
# What root's shell does at login where the tests run is none of the box's: it may take its time.
mount -t tmpfs -o mode=700 root "$root/root"

if [ -d "$root/home/lost+found" ]; then rmdir "$root/home/lost+found"; fi
if [ -d "$BOX_STATE/files" ]; then cp -r "$BOX_STATE/files/." "$root/"; fi

mount -t proc proc "$root/proc"
# A read-only /sys is what keeps udev and the device units away: their conditions test it.
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 dev "$root/dev"

mkdir "$root"/dev/{pts,shm,mqueue,mapper}
nodes="null zero full random urandom tty kmsg loop-control btrfs-control fuse mapper/control"
for node in $nodes; do
    if [ -e "/dev/$node" ]; then cp -a "/dev/$node" "$root/dev/$node"; fi
done
cp -a "$BOX_STATE/nodes/." "$root/dev/"
mount -t devpts -o newinstance,ptmxmode=0666,gid=5,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%%:*}" "$root/dev/${number#*:}"
done

# Written, never removed: a missing machine-id is a first boot, which presets every unit.
rm -f "$root/etc/machine-id" "$root/etc/hostname" "$root/etc/hosts"
echo "$BOX_MACHINE_ID" >"$root/etc/machine-id"
echo "$BOX_NAME" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$BOX_NAME" >"$root/etc/hosts"
hostname "$BOX_NAME"
ip link set lo up

mkdir "$root/run/old"
cd "$root"
pivot_root . run/old
umount -l /run/old
rmdir /run/old
# Workers mount in their own namespace and count on propagation to the rest of the machine.
mount --make-rshared /
exec env -i container=homemgr-box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal </dev/null
