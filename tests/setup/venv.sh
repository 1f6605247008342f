#!/bin/bash
# Make or refresh the virtual environment .venv: volagent (editable) and everything its tests need,
# at the versions of requirements.lock.
#
# Does nothing when .venv already matches; says one line when it works. Two runs at once wait for each
# other. An interrupted run is repeated by the next one, since the stamp is written last.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly venv=$PWD/.venv
readonly stamp=$venv/.installed
readonly log=$venv/install.log

find_python() {  # prints an interpreter that will do, the default one first
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "volagent: setup: no Python 3.11 or newer found" >&2
  echo "hint: install python3 (Debian 12, Ubuntu 24.04 or newer have one that will do)" >&2
  return 1
}

wanted() {  # what the environment is made from; another place or other versions mean: make it again
  { echo "$venv"; cat pyproject.toml requirements.lock tests/setup/venv.sh; } | sha256sum
}

is_current() {
  [[ -f $stamp && "$(<"$stamp")" == "$(wanted)" ]] && "$venv/bin/python" -c '' 2>/dev/null
}

make_environment() {
  local python=$1
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv --clear "$venv"
    return
  fi
  # Debian and Ubuntu keep ensurepip in a package of its own, one for each Python version.
  tests/setup/packages.sh "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  "$python" -m venv --clear "$venv"
}

is_current && exit 0
exec 9<pyproject.toml
flock 9
is_current && exit 0   # somebody else did it while we waited

echo "setup: installing volagent and its tools into .venv (once; again when pyproject.toml or requirements.lock change)"
rm -f "$stamp"
if ! { "$venv/bin/python" -m pip --version && grep -qsF "$venv" "$venv/bin/pip"; } >/dev/null 2>&1; then
  make_environment "$(find_python)"
fi
if ! PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip install \
    --no-input --constraint requirements.lock --editable '.[dev]' >"$log" 2>&1 </dev/null; then
  echo "volagent: setup: pip failed; the end of $log:" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
# Compiled once here: starts stay quick where Python may not write next to its sources.
"$venv/bin/python" -m compileall -q volagent
wanted >"$stamp"
