"""The airspeed velocity suite of lvm.

Importing this package points numba's cache at a folder beside the suite, before numba is imported: one for each commit
that asv builds, since a library of long ago may not tell its sources from those of another commit, installed to the
same paths. One commit would be measured with another's machine code.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".numba_cache"

if commit := os.environ.get("ASV_COMMIT"):
    os.environ["NUMBA_CACHE_DIR"] = str(FOLDER / commit)
else:
    os.environ.setdefault("NUMBA_CACHE_DIR", str(FOLDER))
