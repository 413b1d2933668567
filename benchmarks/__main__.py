# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks [NAME ...]``: the named benchmarks, or all of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.table import publish


def main(names: list[str]) -> int:
    """Run and publish; 2 when a name is unknown."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    if unknown := [name for name in names if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        print(f"bench-{name}")
        publish(name, importlib.import_module(f"benchmarks.bench_{name}").run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
