#!/bin/bash
# Build the box of the test machines: Debian 12 with the tools of the scenarios, for libvirt.
#
#   build-box.sh FILE
#
# As root, with mmdebstrap, from the mirror that this machine's apt uses; no box catalogue, no loop
# device, no mount, no virtual machine. Everything is made beside FILE, and FILE appears at the end.
#
# What is in it besides a small Debian: NFS and NBD (both sides), open-iscsi, multipath-tools, file
# system tools. The kernel's own iSCSI target needs no tools. No service of these is enabled.
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

readonly suite=bookworm disk_mib=4096 root_uuid=6f0c7f5e-2d3b-4f58-9d44-766f6c616765
readonly box=${1:?the name of the box file}
readonly packages=(
  linux-image-cloud-amd64 initramfs-tools lz4 systemd systemd-sysv udev dbus kmod openssh-server sudo
  python3 iproute2 procps psmisc less e2fsprogs xfsprogs fdisk dmsetup zstd
  nfs-common nfs-kernel-server rpcbind open-iscsi multipath-tools nbd-client nbd-server
)

mkdir -p "$(dirname "$box")"
work=$(mktemp -d "$(dirname "$box")/box.XXXXXX")
readonly work tree=$work/tree
trap 'rm -rf "$work"' EXIT

say() { printf 'box: %4d s  %s\n' "$SECONDS" "$*"; }

list_sources() {   # of this machine, when it runs the same release
  apt-get indextargets --format "\$(REPO_URI) \$(CODENAME) \$(COMPONENT) \$(ORIGIN)" 'Created-By: Packages' |
    awk -v suite="$suite" '$4 ~ /^Debian/ && $3 == "main" && index($2, suite) == 1 {
      print "deb " $1 " " $2 " main" }' | sort -u
}

list_proxies() {
  apt-config dump --format '%F "%v";%n' | grep -i '^Acquire::https\?::proxy' || true
}

write_hooks() {
  cat >"$work/before" <<'HOOK'
#!/bin/sh
# Before the kernel is installed: an initial RAM disk with what the virtual hardware needs.
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=lz4\nRESUME=none\nFSTYPE=ext4\n' >"$1/etc/initramfs-tools/conf.d/box"
printf '%s\n' virtio_pci virtio_blk virtio_net ext4 crc32c >"$1/etc/initramfs-tools/modules"
HOOK
  cat >"$work/after" <<'HOOK'
#!/bin/sh
set -e
root=$1
in_root() { chroot "$root" "$@"; }

# The user that vagrant logs in as.
in_root useradd --create-home --shell /bin/bash --uid 1000 vagrant
home=$root$(in_root getent passwd vagrant | cut -d : -f 6)
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
chmod 0440 "$root/etc/sudoers.d/vagrant"
install -d -m 0700 "$home/.ssh"
install -m 0600 "$PUBLIC_KEY" "$home/.ssh/authorized_keys"
chown -R 1000:1000 "$home/.ssh"

# The first interface is vagrant's; the others it sets up itself, and those keep their address when
# their cable is pulled, so that a partition is silence and not a configuration change.
cat >"$root/etc/systemd/network/20-eth0.network" <<END
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
ClientIdentifier=mac
UseDNS=no
END
mkdir "$root/etc/systemd/network/50-vagrant-eth1.network.d"
printf '[Network]\nConfigureWithoutCarrier=yes\nIgnoreCarrierLoss=yes\nLinkLocalAddressing=no\n' \
  >"$root/etc/systemd/network/50-vagrant-eth1.network.d/keep.conf"
in_root systemctl --quiet enable systemd-networkd

# Every clone gets an identity of its own; host keys are shared, since making them takes long where
# the processor is emulated, and the machines are reached from their host only.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
printf 'UseDNS no\nPasswordAuthentication no\nMaxSessions 100\n' >"$root/etc/ssh/sshd_config.d/box.conf"
echo box >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 box\n' >"$root/etc/hosts"
echo '/dev/vda1 / ext4 defaults,noatime 0 0' >"$root/etc/fstab"

# Scenarios start what they need; everything else would only make the boot longer.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer systemd-timesyncd.service open-iscsi.service iscsid.service \
  iscsid.socket multipathd.service multipathd.socket nfs-server.service nfs-blkmap.service \
  nfs-client.target rpcbind.service rpcbind.socket rpc-statd.service nbd-client.service \
  nbd-server.service getty@tty1.service remote-fs.target; do
  in_root systemctl --quiet disable "$unit" 2>/dev/null || true
done
in_root systemctl --quiet mask systemd-logind.service systemd-update-utmp.service \
  systemd-update-utmp-runlevel.service systemd-binfmt.service rpc-statd-notify.service \
  systemd-pstore.service systemd-networkd-wait-online.service getty-static.service \
  proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
  sys-kernel-tracing.mount proc-fs-nfsd.mount run-rpc_pipefs.mount nfs-idmapd.service \
  nfsdcld.service rpc-gssd.service auth-rpcgss-module.service modprobe@drm.service \
  modprobe@efi_pstore.service
in_root systemctl --quiet set-default multi-user.target
# An emulated machine among others that boot may take minutes for what systemd gives up after 90 s: a
# unit that failed at boot for that is a machine without a network.
install -d "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultTimeoutStartSec=15min\nDefaultDeviceTimeoutSec=15min\n' \
  >"$root/etc/systemd/system.conf.d/box.conf"
HOOK
  chmod +x "$work/before" "$work/after"
}

make_tree() {
  local keys
  keys=$(dirname "$(dpkg -L vagrant | grep '/keys/vagrant\.pub$')")
  export PUBLIC_KEY=$keys/vagrant.pub
  write_hooks
  list_proxies >"$work/apt.conf"
  list_sources >"$work/sources.list"
  local sources=()   # none: what mmdebstrap takes by itself
  [[ ! -s $work/sources.list ]] || sources=("$work/sources.list")
  if ! mmdebstrap --mode=root --variant=minbase --format=directory \
    --aptopt="$work/apt.conf" --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include="$(IFS=,; echo "${packages[*]}")" \
    --essential-hook="$work/before" --customize-hook="$work/after" \
    "$suite" "$tree" "${sources[@]}" </dev/null >"$work/log" 2>&1; then
    tail -n 30 "$work/log" >&2
    exit 1
  fi
  say "$(du -sm "$tree" | cut -f1) MiB of files"
}

make_disk() {   # one partition after 1 MiB, in which GRUB has its place
  local kernel
  kernel=$(basename "$tree"/boot/vmlinuz-*)
  mkdir -p "$tree/boot/grub"
  cat >"$tree/boot/grub/grub.cfg" <<END
set timeout=0
menuentry box {
  linux /boot/$kernel root=UUID=$root_uuid ro console=ttyS0 net.ifnames=0 quiet mitigations=off \
    random.trust_cpu=on fsck.mode=skip audit=0
  initrd /boot/initrd.img-${kernel#vmlinuz-}
}
END
  mke2fs -q -t ext4 -U "$root_uuid" -L root -m 1 -O '^metadata_csum_seed' \
    -d "$tree" "$work/partition" $((disk_mib - 2))M
  truncate -s ${disk_mib}M "$work/disk"
  echo 'start=2048, type=83, bootable' | sfdisk -q "$work/disk"
  dd if="$work/partition" of="$work/disk" bs=1M seek=1 conv=notrunc,sparse status=none
  rm "$work/partition"

  # shellcheck disable=SC2016  # GRUB's variable
  printf 'search --fs-uuid --set=root %s\nset prefix=($root)/boot/grub\nconfigfile /boot/grub/grub.cfg\n' \
    "$root_uuid" >"$work/early.cfg"
  grub-mkimage -O i386-pc -c "$work/early.cfg" -o "$work/core.img" -p /boot/grub \
    biosdisk part_msdos ext2 search search_fs_uuid configfile normal linux
  [[ $(stat -c %s "$work/core.img") -lt $((2047 * 512)) ]]
  dd if=/usr/lib/grub/i386-pc/boot.img of="$work/disk" bs=440 count=1 conv=notrunc status=none
  dd if="$work/core.img" of="$work/disk" bs=512 seek=1 conv=notrunc status=none
}

make_box() {
  qemu-img convert -O qcow2 -c "$work/disk" "$work/box.img"
  printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' $((disk_mib / 1024)) \
    >"$work/metadata.json"
  printf 'Vagrant.configure("2") { |config| config.vm.guest = :debian }\n' >"$work/Vagrantfile"
  tar -C "$work" -cf "$work/made.box" metadata.json Vagrantfile box.img   # the image is compressed
  mv "$work/made.box" "$box"
}

fail() { printf 'volagent: box: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

[[ $EUID -eq 0 ]] || fail 'needs root' 'sudo make vagrant'
missing=()
for tool in vagrant mmdebstrap mke2fs sfdisk qemu-img grub-mkimage ssh-keygen; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[[ ${#missing[@]} -eq 0 ]] || fail "missing: ${missing[*]}" 'tests/setup/packages.sh vagrant, as root'
[[ -e /usr/lib/grub/i386-pc/boot.img ]] || fail 'missing: GRUB for PC BIOS' 'apt-get install grub-pc-bin'
free_mib=$(df --output=avail -BM "$work" | tail -n 1 | tr -dc 0-9)
[[ $free_mib -ge 2048 ]] || fail "needs 2048 MiB in $(dirname "$box"), $free_mib are free" 'make room'
make_tree
ssh-keygen -q -t ed25519 -N '' -C box -f "$tree/etc/ssh/ssh_host_ed25519_key" <<<y >/dev/null
make_disk
make_box
say "$box: $(du -m "$box" | cut -f1) MiB"
