#!/bin/bash
# The first process under another kernel: makes its root writable, runs one job, switches off.
#
# Environment: GUEST_STATE and GUEST_KIND (see guest.sh). In the former job.sh is what to run; its
# output goes to "output", its exit code to "status".
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trap 'systemctl poweroff -ff' EXIT
set -euo pipefail
mount -t proc proc /proc
case $GUEST_KIND in
    uml) modules=$GUEST_STATE/root/usr/lib/uml/modules ;;
    *) modules=$GUEST_STATE/root/usr/lib/modules ;;
esac
insmod "$modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"*

# The root is what the machine outside has, under an overlay that is thrown away.
mount -t tmpfs -o mode=755 top /mnt
mkdir /mnt/{upper,work,root}
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work root /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm lib/modules
mount -t devpts -o newinstance,ptmxmode=0666,gid=5,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
# Not over /tmp: the repository may be there.
mkdir -m 1777 run/tmp
export TMPDIR=/run/tmp
mount --bind "$modules" lib/modules
# Programs of the distribution that these kernels are of, for those who make a root of it.
mkdir run/kernels
mount --bind "$GUEST_STATE/root" run/kernels
mkdir run/state
case $GUEST_KIND in
    uml) mount -t hostfs -o "/mnt$GUEST_STATE" none run/state ;;
    *) mount -t virtiofs state run/state ;;
esac
mkdir run/outside
pivot_root . run/outside
umount -l /run/outside
rmdir /run/outside
ip link set lo up
for module in loop dm-mod; do modprobe "$module"; done

status=0
bash /run/state/job.sh </dev/null >/run/state/output 2>&1 || status=$?
echo "$status" >/run/state/status
