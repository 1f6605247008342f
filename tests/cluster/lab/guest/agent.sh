#!/bin/bash
# What a machine runs: jobs named on the serial line, whose scripts and outputs lie in the window.
# The protocol stands in console.py.
set -eu
hostname "$LAB_NAME"
ip link set lo up
ip addr add "$LAB_ADDRESS" dev vec0
ip link set vec0 up
if [ "$LAB_INIT" = agent ]; then   # else systemd has done it
  mkdir -p /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount --make-rshared /   # as systemd leaves it
  mknod -m 0660 /dev/loop-control c 10 237   # as udev does; the first open loads the module
  umount --lazy /run/host
fi

stty -F /dev/ttyS0 raw -echo
exec 8</dev/ttyS0 9>/dev/ttyS0
cd /
echo READY >&9
while read -r -u 8 job; do
  (
    file=$LAB_WINDOW/$job
    status=0
    bash "$file.sh" >"$file.out" 2>"$file.err" </dev/null 8<&- 9>&- || status=$?
    echo "$job $status" >&9
  ) &
done
halt -f
