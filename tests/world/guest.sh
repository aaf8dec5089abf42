#!/bin/bash
# Boots another kernel whose root is the root of this machine, read-only, and waits for its end.
# Runs as the first process of fresh mount and pid namespaces (guest.py starts it).
#
# Environment: GUEST_KIND ("uml": a kernel as a process; "qemu": an emulated machine), GUEST_IMAGE
# (the layer with kernels and emulator), GUEST_STATE (directory for one run, seen in the guest under
# the same name), GUEST_MEMORY (such as 1G).
set -euo pipefail
root=$GUEST_STATE/root
mkdir -p "$root" "$GUEST_STATE/layer"
mount -o ro,loop "$GUEST_IMAGE" "$GUEST_STATE/layer"
mount --bind "$GUEST_STATE/layer/upper" "$root"
# All of that wants a newer C library than this machine has, so it gets a root of its own, in
# which this machine's root is a directory.
mount --rbind / "$root/mnt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
# The memory of a uml is a file, which must be allowed to hold programs.
mount -t tmpfs -o mode=1777,exec memory "$root/dev/shm"

# What a kernel does not know becomes the environment of its first process.
common="ro quiet panic=-1 init=$GUEST_STATE/init.sh GUEST_STATE=$GUEST_STATE GUEST_KIND=$GUEST_KIND"

if [ "$GUEST_KIND" = uml ]; then
    # seccomp=on is the faster of its two ways to catch system calls.
    # shellcheck disable=SC2086
    HOME=/tmp exec chroot "$root" /usr/bin/linux.uml "mem=$GUEST_MEMORY" seccomp=on \
        root=/dev/root rootfstype=hostfs rootflags=/mnt con=null con0=fd:0,fd:1 umid=guest $common
fi

share() { # NAME DIRECTORY CACHE
    chroot "$root" /usr/libexec/virtiofsd --socket-path "/tmp/$1" --shared-dir "$2" --cache "$3" \
        --sandbox none --no-announce-submounts >/dev/null 2>&1 &
    until [ -S "$root/tmp/$1" ]; do sleep 0.02; done
}
share root /mnt always
share state "/mnt$GUEST_STATE" never
kernel=$(cd "$root" && ls -d usr/lib/modules/*)
exec chroot "$root" /usr/bin/qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M q35 -smp 2 \
    -m "$GUEST_MEMORY" -nodefaults -nographic -serial stdio -no-reboot \
    -object "memory-backend-memfd,id=memory,size=$GUEST_MEMORY,share=on" -numa node,memdev=memory \
    -chardev socket,id=root,path=/tmp/root -device vhost-user-fs-pci,chardev=root,tag=root \
    -chardev socket,id=state,path=/tmp/state -device vhost-user-fs-pci,chardev=state,tag=state \
    -kernel "/$kernel/vmlinuz" \
    -append "console=ttyS0 rootfstype=virtiofs root=root mitigations=off $common"
