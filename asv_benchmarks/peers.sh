#!/usr/bin/env bash
# Run a command in an environment of its own that holds lvm, as it is here, and every peer:
#     ./peers.sh python peer_table.py --into ../README.md
#     ./peers.sh asv run -E existing --bench "fits.Gaussian.*onedal"
# The environment is env/peers beside this script, or $PEERS_ENV; delete it to have it made anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment=${PEERS_ENV:-$here/env/peers}
if [ ! -e "$environment/complete" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --upgrade pip
    "$environment/bin/python" -m pip install --quiet --editable "$here/..[bench,peers]"
    touch "$environment/complete"
fi
PATH="$environment/bin:$PATH" exec "$@"
