"""A real ComfyUI server as a subprocess, with the pack linked into a base directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from ..host import REPOSITORY, host_path

PACK_FOLDER = "compinv"


@dataclass(frozen=True)
class PromptResult:
    """What became of one queued prompt.

    `outputs` maps node ids to their UI output; `error` is the sentence of the node that failed, `node_errors` what
    ComfyUI's validation said before running. `interrupted` is true after a cancel.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    error_type: str = ""
    error_node: str = ""
    node_errors: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not (self.error or self.node_errors or self.interrupted)

    @property
    def remarks(self) -> list[str]:
        """What our nodes remarked."""
        return [sentence for sentence, _ in self._remarks]

    @property
    def warnings(self) -> list[str]:
        """Those remarks that are no mere notes."""
        return [sentence for sentence, severity in self._remarks if severity == "warning"]

    @property
    def _remarks(self) -> list[list[str]]:
        return [each for output in self.outputs.values() for said in output.get("remarks", ()) for each in said]


class ComfyServer:
    """Starts, questions, interrupts and stops one ComfyUI.

    Parameters
    ----------
    base : Path
        Base directory of the server: models, input, output and custom nodes live below it.
    options : str
        More of ComfyUI's command line.
    card : bool
        Compute on a graphics card.
    """

    def __init__(self, base: Path, *options: str, card: bool = False) -> None:
        self.base = base
        self._options = options if card else ("--cpu", *options)
        self.log_file = base / "server.log"
        self.client_id = uuid.uuid4().hex
        self.port = 0
        self._process: subprocess.Popen | None = None
        for name in ("models/checkpoints", "models/embeddings", "custom_nodes", "input", "output", "temp", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        # A new user would be greeted by the template browser, in front of everything else.
        settings = base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))
        link = base / "custom_nodes" / PACK_FOLDER
        if not link.exists():
            link.symlink_to(REPOSITORY, target_is_directory=True)

    # Files

    def add_checkpoint(self, path: Path, name: str = "") -> str:
        """Offer a checkpoint to the server and return the name under which the loader knows it."""
        name = name or f"{path.name.split('-')[0].removesuffix('.safetensors')}.safetensors"
        link = self.base / "models" / "checkpoints" / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        return name

    def add_input(self, path: Path, name: str = "") -> str:
        """Copy an image into the server's input folder and return its name there."""
        shutil.copyfile(path, self.base / "input" / (name or path.name))
        return name or path.name

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # Life

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 600.0, port: int = 0) -> None:
        """Start the server, at a free port if none is given, and wait until it answers."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        command = [
            sys.executable, str(host_path() / "main.py"), "--base-directory", str(self.base),
            "--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes",
            "--listen", "127.0.0.1", "--port", str(self.port), *self._options,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=self.base, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with status {self._process.returncode}:\n{self.log[-4000:]}")
            with contextlib.suppress(OSError, ValueError):
                self.get("/system_stats")
                return
            time.sleep(0.2)
        self.stop()
        raise TimeoutError(f"ComfyUI did not answer within {timeout} s:\n{self.log[-4000:]}")

    def stop(self) -> None:
        """Ask the server to end, and make it end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server as a power cut would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # HTTP

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: dict[str, Any]) -> str:
        """Queue an API-format prompt and return its id; raises urllib's HTTPError when validation refuses it."""
        return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})["prompt_id"]

    def wait(
        self, prompt_id: str, timeout: float = 600.0, while_waiting: Callable[[], None] = lambda: None
    ) -> PromptResult:
        """Wait for a queued prompt and return what became of it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return _result(entry)
            if not self.is_running:
                raise RuntimeError(f"ComfyUI ended while it ran a prompt:\n{self.log[-4000:]}")
            while_waiting()
            time.sleep(0.1)
        raise TimeoutError(f"The prompt did not end within {timeout} s:\n{self.log[-4000:]}")

    def run(self, prompt: dict[str, Any], timeout: float = 600.0) -> PromptResult:
        """Queue a prompt and wait for it; a prompt that validation refuses is a result too."""
        try:
            return self.wait(self.queue(prompt), timeout)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 400:
                raise
            return _refused(json.load(refusal))

    def run_with_progress(self, prompt: dict[str, Any], show: Callable[[int, int], None]) -> PromptResult:
        """Run a prompt of any length; `show(done, total)` follows the node that is at work."""
        with self.events() as events:

            def show_latest() -> None:
                at_work = [event["data"] for event in events if event["type"] == "progress"]
                if at_work:
                    show(at_work[-1]["value"], at_work[-1]["max"])
                events.clear()

            try:
                return self.wait(self.queue(prompt), float("inf"), show_latest)
            except urllib.error.HTTPError as refusal:
                if refusal.code != 400:
                    raise
                return _refused(json.load(refusal))

    def interrupt(self) -> None:
        """Press the stop button."""
        self.post("/interrupt", {})

    def images(self, result: PromptResult, node: str) -> list[np.ndarray]:
        """Return the saved images of an output node as uint8 arrays (H, W, 3)."""
        arrays = []
        for record in result.outputs[node]["images"]:
            query = urllib.parse.urlencode(record)
            with urllib.request.urlopen(f"{self.url}/view?{query}", timeout=60) as answer:
                arrays.append(np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")))
        return arrays

    def pack_import_seconds(self) -> float:
        """Return the pack's import time from the report in the server's own log; raises when the import failed."""
        found = re.search(rf"([\d.]+) seconds( \(IMPORT FAILED\))?: \S*/{PACK_FOLDER}$", self.log, re.MULTILINE)
        if found is None or found[2]:
            raise RuntimeError(f"ComfyUI did not import the pack:\n{self.log[-6000:]}")
        return float(found[1])

    @contextlib.contextmanager
    def events(self) -> Iterator[list[dict[str, Any]]]:
        """Collect the websocket messages of this client while the block runs; binary previews have type `preview`."""
        received: list[dict[str, Any]] = []
        ready, done = threading.Event(), threading.Event()

        async def listen() -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{self.url}/ws?clientId={self.client_id}", max_msg_size=0) as socket_,
            ):
                ready.set()
                while not done.is_set():
                    with contextlib.suppress(asyncio.TimeoutError):
                        message = await socket_.receive(timeout=0.2)
                        if message.type == aiohttp.WSMsgType.TEXT:
                            received.append(json.loads(message.data))
                        elif message.type == aiohttp.WSMsgType.BINARY:
                            received.append({"type": "preview", "data": message.data})
                        elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                            return

        thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
        thread.start()
        if not ready.wait(20):
            raise TimeoutError("The server did not open a websocket.")
        try:
            yield received
        finally:
            done.set()
            thread.join(20)


def _result(entry: dict[str, Any]) -> PromptResult:
    details: dict[str, Any] = {}
    interrupted = False
    for kind, body in entry["status"]["messages"]:
        interrupted |= kind == "execution_interrupted"
        if kind == "execution_error":
            details = {
                "error": body["exception_message"].strip(),
                "error_type": body["exception_type"],
                "error_node": body["node_type"],
            }
    return PromptResult(outputs=entry["outputs"], interrupted=interrupted, **details)


def _refused(body: dict[str, Any]) -> PromptResult:
    error = body.get("error", {})
    return PromptResult(
        error=f"{error.get('message', '')} {error.get('details', '')}".strip(),
        error_type=error.get("type", ""),
        node_errors=body.get("node_errors", {}),
    )
