#!/bin/bash
# Make the virtual environment .venv/moto: moto's server, which stands in for the EC2 API in tests.
#
# Of its own, because its botocore and our `kubernetes` package want different versions of
# python-dateutil. Made once; without a network it says so and goes on: the tests that need it are
# skipped with their reason.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly venv=$PWD/.venv/moto
readonly stamp=$venv/.installed
readonly log=$venv/install.log
readonly wanted=('moto[ec2]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5' 'boto3==1.44.5')

is_current() {
  [[ -f $stamp && "$(<"$stamp")" == "$venv ${wanted[*]}" ]] && "$venv/bin/python" -c '' 2>/dev/null
}

is_current && exit 0
exec 9<tests/setup/moto.sh
flock 9
is_current && exit 0   # somebody else did it while we waited

echo "setup: installing moto's server into .venv/moto (once)"
.venv/bin/python -m venv --clear "$venv"
if PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip install \
    --no-input "${wanted[@]}" >"$log" 2>&1 </dev/null; then
  echo "$venv ${wanted[*]}" >"$stamp"
else
  echo "setup: moto cannot be installed, so the tests of EBS volumes are skipped; the end of $log:"
  tail -n 3 "$log"
fi
