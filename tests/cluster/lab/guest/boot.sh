#!/bin/bash
# The first program of a machine. The root is the host's file tree (hostfs, as seen by the kernel's
# process): cover it with an overlay whose upper layer lies in memory, and move into that, so that
# nothing written here reaches the host. Then become the agent, or systemd that starts the agent.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
trap 'echo "boot: failed in line $LINENO"; halt -f' ERR

modules=/usr/lib/uml/modules/$(uname -r)
mount -t proc proc /proc
mount -t tmpfs -o size=1G layers /mnt
mkdir /mnt/upper /mnt/work /mnt/root
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root

cd /mnt/root
mkdir -p lib/modules
mount --bind /usr/lib/uml/modules lib/modules
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts
mount -t tmpfs shm dev/shm
mount -t tmpfs -o mode=0755 run run
mkdir -p run/lock run/rpcbind run/host
mount -t hostfs -o "$LAB_WINDOW" window ".$LAB_WINDOW"
pivot_root . run/host

exec chroot . /bin/bash "$LAB_GUEST/$LAB_INIT.sh" </dev/null
