#!/bin/bash
# Makes .venv/moto: moto's server, which answers as EC2 does, in an environment of its own, because
# its libraries and the official Kubernetes client want different versions of python-dateutil.
# Without an index the tests against it are skipped, with the reason.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x .venv/moto/bin/moto_server ] && exit 0
python="$(.venv/bin/python -c 'import sys; print(sys.base_prefix)')/bin/python3"
"$python" -m venv .venv/moto
if ! .venv/moto/bin/pip install --quiet --disable-pip-version-check 'moto[ec2,server]>=5' \
  >.venv/moto/install.log 2>&1; then
  tail -3 .venv/moto/install.log >&2
  rm -rf .venv/moto
  echo "moto could not be installed: the tests of kubernetes.io/aws-ebs will be skipped" >&2
fi
