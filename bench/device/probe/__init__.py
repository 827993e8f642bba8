"""Two nodes that `bench.device` puts into the ComfyUI that it measures: they read the clock and the card's memory."""

from __future__ import annotations

import json
import time

import torch
from comfy_api.latest import ComfyExtension, io, ui

_begun = {"seconds": 0.0}


def _settled() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class BenchBegin(io.ComfyNode):
    """What stands behind this node is measured; it waits for `after`, which is not."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchBegin",
            category="bench",
            inputs=[io.AnyType.Input("value"), io.AnyType.Input("after"), io.Int.Input("run", max=2**31)],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, value, after, run: int) -> io.NodeOutput:
        _settled()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        _begun["seconds"] = time.perf_counter()
        return io.NodeOutput(value)


class BenchEnd(io.ComfyNode):
    """Says how long it took since `BenchBegin`, and the most memory that tensors had on the card."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BenchEnd", category="bench", is_output_node=True, inputs=[io.AnyType.Input("value")], outputs=[]
        )

    @classmethod
    def execute(cls, value) -> io.NodeOutput:
        _settled()
        seen = {"seconds": time.perf_counter() - _begun["seconds"], "mib": 0.0, "finite": True}
        if torch.cuda.is_available():
            seen["mib"] = torch.cuda.max_memory_allocated() / 2**20
        if isinstance(value, dict) and "samples" in value:
            seen["finite"] = bool(value["samples"].isfinite().all())
        return io.NodeOutput(ui=ui.PreviewText(json.dumps(seen)))


class BenchExtension(ComfyExtension):
    """Hands both to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [BenchBegin, BenchEnd]


async def comfy_entrypoint() -> BenchExtension:
    """Entry point that ComfyUI calls."""
    return BenchExtension()
