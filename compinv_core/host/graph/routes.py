"""The pack's own addresses on ComfyUI's server, `/compinv/…`, which the panels in `web/` ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ... import logger
from ...basics.errors import UserError
from ..progress import server
from .remarks import told
from .tokens import tokens_caught
from .training import run_answer

Answer = Callable[[dict[str, Any]], Any]

# What is posted to `/compinv/<name>`, and what answers; questions and answers are JSON objects.
ANSWERS: dict[str, Answer] = {"run": run_answer, "told": told, "tokens": tokens_caught}


def register() -> None:
    """Add the addresses to the running server; where ComfyUI runs without one, nobody asks."""
    host = server()
    if host is not None:
        for name, answer in ANSWERS.items():
            host.routes.post(f"/compinv/{name}")(_handler(answer))


def _handler(answer: Answer) -> Callable[[Any], Any]:
    """Return what the server calls: a `UserError` becomes ``{"error": sentence}`` with the status 400."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        try:
            question = await request.json()
        except ValueError:
            question = None
        if not isinstance(question, dict):
            return web.json_response({"error": "A question to this address is a JSON object."}, status=400)
        try:
            # Files are read on the way, and the server has to go on meanwhile.
            return web.json_response(await asyncio.to_thread(answer, question))
        except UserError as error:
            return web.json_response({"error": str(error)}, status=400)
        except Exception as error:
            logger.exception("A panel's question could not be answered.")
            sentence = f"This cannot be shown ({type(error).__name__}: {error}); ComfyUI's log says more."
            return web.json_response({"error": sentence}, status=500)

    return handle
