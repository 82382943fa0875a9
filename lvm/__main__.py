"""Run the command line: `python -m lvm --help`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

missing = [name for name in ("typer", "rich", "pandas") if find_spec(name) is None]
if missing:
    sys.stderr.write(f"error: the command line needs {', '.join(missing)}: pip install 'lvm[cli]'\n")
    sys.exit(2)

from lvm.cli import app  # noqa: E402  # needs what was looked for above

if __name__ == "__main__":
    app(prog_name="python -m lvm")
