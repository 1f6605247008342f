#!/bin/bash
# Install the Debian packages that are missing of a set (demo, tests, vagrant) or of the names given.
#
#   packages.sh demo | tests | vagrant | NAME...
#
# As root with apt it installs what is missing; otherwise it says what is missing and goes on, since
# whatever needs a missing tool is skipped with its reason. It starts no service: the tests run servers
# only inside their own virtual machines.
set -euo pipefail

readonly demo=(e2fsprogs xfsprogs btrfs-progs util-linux nfs-common)
readonly tests=("${demo[@]}" podman runc conmon busybox-static user-mode-linux nfs-kernel-server
                rpcbind iproute2 kmod open-iscsi multipath-tools nbd-client nbd-server lvm2 thin-provisioning-tools
                systemd udev man-db shellcheck etcd-server zsh fish gcc libc6-dev)
readonly vagrant=(vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils
                  dnsmasq-base iptables mmdebstrap e2fsprogs fdisk grub-pc-bin grub-common
                  openssh-client iproute2 util-linux)

case ${1:-} in
  demo) packages=("${demo[@]}") ;;
  tests) packages=("${tests[@]}") ;;
  vagrant) packages=("${vagrant[@]}") ;;
  '') echo "usage: packages.sh demo|tests|vagrant|NAME..." >&2; exit 2 ;;
  *) packages=("$@") ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "packages: not a Debian or Ubuntu system; make sure that these tools are there: ${packages[*]}"
  exit 0
fi

list_missing() {
  local package
  for package in "${packages[@]}"; do
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || echo "$package"
  done
}

mapfile -t missing < <(list_missing)
[[ ${#missing[@]} -eq 0 ]] && exit 0
if [[ $EUID -ne 0 ]]; then
  echo "packages: missing (root could install them): ${missing[*]}"
  exit 0
fi

exec 9</etc/debian_version
flock 9
mapfile -t missing < <(list_missing)
[[ ${#missing[@]} -eq 0 ]] && exit 0

log=$(mktemp)
readonly log policy=/usr/sbin/policy-rc.d
made_policy=
clean_up() {
  rm -f "$log"
  [[ -z $made_policy ]] || rm -f "$policy"
}
trap clean_up EXIT
if [[ ! -e $policy ]]; then   # the distribution's switch for "do not start what you install"
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 0755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1 </dev/null; }

echo "packages: installing ${missing[*]}"
apt update || echo "packages: apt-get update failed; trying with the lists that are here"
available=()
for package in "${missing[@]}"; do
  if apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
    available+=("$package")
  else
    echo "packages: $package is not offered by this distribution; what needs it is skipped"
  fi
done
[[ ${#available[@]} -eq 0 ]] && exit 0
if ! apt install --yes --no-install-recommends "${available[@]}"; then
  echo "volagent: packages: apt-get failed; the end of its output:" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
