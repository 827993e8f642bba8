"""Where the repository and the host under test lie; importing this puts both on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from miniworld.host import HOST, REPOSITORY, host_path, put_on_path, start_in_process

put_on_path()

__all__ = ["HOST", "REPOSITORY", "host_path", "start_in_process"]
