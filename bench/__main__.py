"""`make bench`: every figure of the README's table, one JSON line each.

Runs itself in a private mount namespace and a temporary directory on disk. `--quick` takes fewer
runs; `--only` measures a part; `--figures` writes the lines to a file as well.
"""

import argparse
import os
import sys
import tempfile
from itertools import chain
from pathlib import Path

IN_NAMESPACE = "VOLAGENT_BENCH_NAMESPACE"
PARTS = ("pods", "claims", "clusters", "servers", "moves", "scale")


def main() -> int:
    """Enter a private mount namespace, measure, print."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs, for a first look")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--figures", type=Path, help="also write the lines to this file")
    parser.add_argument("--dir", default="/var/tmp", help="where the temporary directory is made")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("volagent bench: mounting needs root; run `sudo make bench`", file=sys.stderr)
        return 1
    if IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "1"
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "bench"]
        os.execvp("unshare", command + sys.argv[1:])
    from bench.claims import run_claims
    from bench.clusters import run_clusters
    from bench.figures import run_all
    from bench.moves import measure_moves
    from bench.scale import run_scale
    from bench.servers import run_servers

    base = Path(tempfile.mkdtemp(prefix="volagent-bench-", dir=arguments.dir))
    lines = []
    parts = {
        "pods": run_all(base, quick=arguments.quick),
        "claims": run_claims(base / "claims", quick=arguments.quick),
        "clusters": run_clusters(base / "clusters", quick=arguments.quick),
        "servers": run_servers(base / "servers", quick=arguments.quick),
        "moves": measure_moves(),
        "scale": run_scale(base / "scale", quick=arguments.quick),
    }
    chosen = [parts[arguments.only]] if arguments.only else parts.values()
    for figure in chain.from_iterable(chosen):
        lines.append(figure.line())
        print(lines[-1], flush=True)
    if arguments.figures:
        arguments.figures.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
