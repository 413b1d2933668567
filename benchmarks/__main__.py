# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks [NAME ...]``: the named benchmarks, or all of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.table import NotHere, publish


def main(names: list[str]) -> int:
    """Run and publish; 2 when a name is unknown, 1 when a named one lacks what it needs."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    if unknown := [name for name in names if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        print(f"bench-{name}")
        try:
            publish(name, importlib.import_module(f"benchmarks.bench_{name}").run())
        except NotHere as reason:
            print(reason, file=sys.stderr)
            if names:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
