"""Remarks where the person sees them: on the node at once, in its output, and there again after a reload."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ...basics.errors import Remark, Remarks, UserError, remarks_to
from ..progress import server

EVENT = "compinv.remarks"


def remarked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Make a node's `execute` tell what is remarked meanwhile.

    Its output for the editor gets ``text``, the sentences behind what it has already, and ``remarks``, one list of
    (sentence, severity). That list is the node's own: what is said of its model while it is sampled comes into the
    same run's history, too.
    """

    @functools.wraps(execute)
    def telling(cls: type, *args: Any, **inputs: Any) -> io.NodeOutput:
        node = Remarks(_sender())
        with remarks_to(node):
            output = execute(cls, *args, **inputs)
        shown = output.ui if isinstance(output.ui, dict) or output.ui is None else output.ui.as_dict()
        shown = dict(shown or {})
        # Each run of a node over a list has to have the same keys.
        text = (*shown.get("text", ()), *(remark.sentence for remark in node.said))
        output.ui = {**shown, "text": text, "remarks": (node.said,)}
        return output

    return telling


def told(question: dict[str, Any]) -> dict[str, Any]:
    """Return what the nodes of a workflow told in its last run, by execution id; nothing where it has not run.

    Parameters
    ----------
    question : dict
        ``workflow``: the id that the editor gave the workflow.
    """
    wanted = question.get("workflow")
    if not isinstance(wanted, str):
        raise UserError("Say by `workflow` the id of the workflow that is asked about.")
    runs = server().prompt_queue.get_history(map_function=lambda run: run)
    for run in reversed(runs.values()):
        if _workflow_id(run["prompt"]) == wanted and run.get("outputs"):
            return run["outputs"]
    return {}


def running_node() -> tuple[dict[str, Any] | None, str | None]:
    """Return the graph that runs, in API form, and the id of the node; (None, None) where none is known."""
    running, item = get_executing_context(), _running_item()
    return (None, None) if item is None or running is None else (item[2], running.node_id)


def _running_item() -> tuple | None:
    """Return what the host's queue has of the run that executes a node: number, id, graph, what came with it."""
    running, host = get_executing_context(), server()
    if running is None or host is None:
        return None
    items, _ = host.prompt_queue.get_current_queue_volatile()
    return next((item for item in items if item[1] == running.prompt_id), None)


def _workflow_id(item: tuple | None) -> str | None:
    """Return the id that the editor gave the workflow that was queued; None where it came without one."""
    came = {} if item is None else item[3].get("extra_pnginfo") or {}
    return (came.get("workflow") or {}).get("id")


def _sender() -> Callable[[list[Remark]], None]:
    """Return what sends the running node's remarks to the editor that queued it; nothing without a server."""
    running, host = get_executing_context(), server()
    if running is None or host is None:
        return lambda said: None

    place = {"workflow": _workflow_id(_running_item()), "node": running.node_id}

    def send(said: list[Remark]) -> None:
        host.send_sync(EVENT, {**place, "remarks": list(said)}, host.client_id)

    send([])
    return send
