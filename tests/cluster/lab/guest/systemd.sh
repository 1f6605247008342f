#!/bin/bash
# Become systemd, which starts the agent (agent.sh) as its service and nothing that the host has
# enabled: what is changed here lies in the machine's own layer.
set -eu
umount --lazy /run/host
: >/etc/fstab
echo "$LAB_NAME" >/etc/hostname
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id   # without one, systemd enables its presets
rm -rf /etc/systemd/system/*.wants /lib/systemd/system-generators /etc/rc?.d
mkdir -p /etc/tmpfiles.d
ln -sf /dev/null /etc/tmpfiles.d/tmp.conf   # it would empty /tmp, where the window is

compgen -v LAB_ | while read -r name; do echo "$name=${!name}"; done >/run/lab.env
cat >/etc/systemd/system/lab-agent.service <<END
[Unit]
After=basic.target
[Service]
EnvironmentFile=/run/lab.env
ExecStart=/bin/bash $LAB_GUEST/agent.sh
END
cat >/etc/systemd/system/lab.target <<END
[Unit]
Requires=basic.target
Wants=lab-agent.service
After=basic.target
AllowIsolate=yes
END
exec env -i PATH="$PATH" /lib/systemd/systemd --unit=lab.target
