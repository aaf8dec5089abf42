#!/bin/bash
# Builds one layer image: runs a recipe in a chroot over the layers below and keeps what it changed.
# Runs in a private mount namespace of its own, so nothing of it is visible or left on the host.
#
# Environment: LAYER_IMAGE (to be made), LAYER_WORK (empty directory), LAYER_LOWERS (as BOX_LOWERS in
# boot.sh; empty for a layer that is a whole root of its own), LAYER_RECIPE (bash text), LAYER_SIZE,
# LAYER_CARRIES (files to be found in /tmp).
set -euo pipefail
umask 022
mkdir "$LAYER_WORK"/{image,below,root}
truncate -s "$LAYER_SIZE" "$LAYER_IMAGE"
mkfs.ext4 -q -m 0 -O ^has_journal "$LAYER_IMAGE"
mount -o loop "$LAYER_IMAGE" "$LAYER_WORK/image"
mkdir -p "$LAYER_WORK"/image/{upper,work}
root=$LAYER_WORK/root

lowers=
number=0
for lower in $LAYER_LOWERS; do
    image=${lower%%:*}
    directory=${lower#*:}
    if [ -n "$image" ]; then
        number=$((number + 1))
        mkdir -p "$LAYER_WORK/below/$number"
        mount -o ro,loop "$image" "$LAYER_WORK/below/$number"
        directory=$LAYER_WORK/below/$number/$directory
    fi
    lowers=$lowers${lowers:+:}$directory
done

if [ -n "$lowers" ]; then
    mount -t overlay layer \
        -o "lowerdir=$lowers,upperdir=$LAYER_WORK/image/upper,workdir=$LAYER_WORK/image/work" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmp "$root/tmp"
    mount -t tmpfs -o mode=755 run "$root/run"
    for carried in $LAYER_CARRIES; do cp "$carried" "$root/tmp/"; done
    # A container may have bind-mounted its own; an overlay shows only what lies underneath.
    if [ -e "$root/etc/resolv.conf" ]; then mount --bind /etc/resolv.conf "$root/etc/resolv.conf"; fi
    # No package may start a service while it is being installed.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    chroot "$root" /bin/bash -euo pipefail -c "$LAYER_RECIPE" </dev/null
    rm "$root/usr/sbin/policy-rc.d"
    if mountpoint -q "$root/etc/resolv.conf"; then umount "$root/etc/resolv.conf"; fi
    umount "$root/run" "$root/tmp" "$root/proc"
    umount -R "$root/dev"
    umount "$root"
else
    (cd "$LAYER_WORK/image/upper" && "$BASH" -euo pipefail -c "$LAYER_RECIPE" </dev/null)
fi
umount "$LAYER_WORK/image"
