"""The Hugging Face hub on this machine, with one repository."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for one repository; `cut` names a file of which only half comes."""

    repository: str
    folder: Path
    cut = ""
    asked: list[str] = []

    def do_GET(self) -> None:
        prefix, _, name = self.path.partition("/resolve/main/")
        self.asked.append(self.path)
        file = self.folder / name
        if prefix != f"/{self.repository}" or not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name == self.cut else content)

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output clean."""


@contextlib.contextmanager
def local_hub(repository: str, folder: Path) -> Iterator[type[Hub]]:
    """Let the hub's own client ask this machine for a repository whose files lie in a folder."""
    from huggingface_hub import constants

    handler = type("LocalHub", (Hub,), {"repository": repository, "folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    try:
        with (
            patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address),
            patch.object(constants, "HF_HUB_OFFLINE", False),
        ):
            yield handler
    finally:
        server.shutdown()
        server.server_close()
