"""The airspeed velocity suite of lvm.

Importing this package points numba's cache at a folder of its own for each commit, before numba is imported.
numba decides by a source file's path, time and size whether a cached kernel is still right: it does not notice an
edit to a kernel that was inlined from another file, and in asv's environments every commit is installed to
the same paths. One commit would be measured with another's machine code.
"""

import hashlib
import importlib.util
import os
from pathlib import Path


def _sources_key() -> str:
    """Return a hash of lvm's sources, for environments that asv did not build and whose commit it does not know."""
    spec = importlib.util.find_spec("lvm")
    digest = hashlib.sha256()
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"sources-{digest.hexdigest()[:16]}"


os.environ["NUMBA_CACHE_DIR"] = str(
    Path(__file__).resolve().parents[1] / ".numba_cache" / (os.environ.get("ASV_COMMIT") or _sources_key())
)
