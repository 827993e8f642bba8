"""How many cases an attack has: a few in the suite, all of them by command (`make fuzz`)."""

from __future__ import annotations

import os

ALL = os.environ.get("COMPINV_ATTACK") == "all"
FIRST_SEED = int(os.environ.get("COMPINV_SEED", "0"))


def seeds(few: int, many: int) -> range:
    """Return the seeds of this run; `COMPINV_SEED` moves them."""
    return range(FIRST_SEED, FIRST_SEED + (many if ALL else few))
