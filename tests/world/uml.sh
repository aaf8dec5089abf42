#!/bin/bash
# Starts a user-mode Linux whose root is the root of this machine, read-only, and waits for its end.
# Runs as the first process of fresh mount and pid namespaces (uml.py starts it).
#
# Environment: UML_IMAGE (the layer with the kernel), UML_STATE (directory for one run, seen in the
# machine under the same name), UML_MEMORY (such as 1G).
set -euo pipefail
root=$UML_STATE/root
mkdir -p "$root"
mount -o ro,loop "$UML_IMAGE" "$UML_STATE/layer"
mount --bind "$UML_STATE/layer/upper" "$root"
# The kernel wants a newer C library than this machine has, so it gets a root of its own, in
# which this machine's root is a directory.
mount --rbind / "$root/mnt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
# Its memory is a file, which must be allowed to hold programs.
mount -t tmpfs -o mode=1777,exec memory "$root/dev/shm"
# What the kernel does not know becomes the environment of its first process. Of several processors
# it uses one; seccomp=on is the faster of its two ways to catch system calls.
HOME=/tmp exec chroot "$root" /usr/bin/linux.uml "mem=$UML_MEMORY" seccomp=on quiet panic=-1 \
    root=/dev/root rootfstype=hostfs rootflags=/mnt ro "init=$UML_STATE/init.sh" \
    con=null con0=fd:0,fd:1 umid=homemgr "UML_STATE=$UML_STATE"
