"""The pack on a graphics card, through the real ComfyUI: ``make gpu``, or ``python -m bench.device``.

Stable Diffusion 1.5 and SDXL of full size with random weights in half precision; nothing is downloaded. ComfyUI is
started once for each of its ways with memory and types; in each, sampling without and with layout guidance at the
nodes' defaults, though random weights never fall below the threshold, so that it is the worst case. Then the three
trainings, stop and resume, recording, and a detector. Results are one table, and one JSON file that grows as they come;
what the minutes do not reach is named.

`--small` takes the tests' small networks, and a machine without a card its CPU: that tries the command itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from compinv_core.basics.atomic_file import replacing  # noqa: E402
from support import checkpoints, pictures  # noqa: E402
from support.models import detector_files  # noqa: E402
from support.server import ComfyServer  # noqa: E402

from .graphs import TRAINERS, Graphs  # noqa: E402

STATIC = "--disable-dynamic-vram"
CONFIGURATIONS = {
    "as it is": (),
    "no dynamic memory": (STATIC,),
    "--bf16-unet": ("--bf16-unet",),
    "--force-fp32": ("--force-fp32",),
    "--lowvram": ("--lowvram",),
    "--novram": ("--novram",),
}
"""ComfyUI's options by the name of the row; dynamic memory is on where they do not say otherwise."""


@dataclass(frozen=True)
class Scale:
    """Networks, sides of pictures, and lengths."""

    families: dict[str, tuple[str, int]]
    steps: int
    trained: dict[str, tuple[int, int]]


FULL = Scale(
    {"SD 1.5": ("full", 512), "SDXL": ("sdxl_full_deep", 1024)},
    20,
    {"textual inversion": (10, 60), "Custom Diffusion": (5, 30), "DreamBooth": (3, 13)},
)
SMALL = Scale({"SD 1.5": ("tiny", 64), "SDXL": ("sdxl_deep", 64)}, 2, dict.fromkeys(TRAINERS, (1, 2)))


class OutOfTime(Exception):
    """The minutes are over."""


class Results:
    """The rows so far, in a file that is whole at any moment."""

    def __init__(self, file: Path, minutes: float) -> None:
        self._file, self._end, self.rows = file, time.monotonic() + minutes * 60, []
        self.about: dict[str, Any] = {"torch": torch.__version__, "card": card()}

    def left(self) -> float:
        """Seconds that are left; raises `OutOfTime` where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def _add(self, family: str, configuration: str, what: str, values: dict[str, Any]) -> None:
        self.rows.append({"family": family, "configuration": configuration, "what": what, **values})
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps({**self.about, "rows": self.rows}, indent=1) + "\n")
        told = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
        print(f"{family:8}{configuration:20}{what:28}{told}", flush=True)

    def part(self, family: str, configuration: str, what: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do a part and keep its row; its sentence where it fails, and a word where there is no time for it."""
        try:
            self.left()
            values = work()
        except OutOfTime:
            values = {"result": "not reached"}
        except (Failure, RuntimeError, TimeoutError) as error:
            values = {"result": f"failed: {' '.join(str(error).split())[-300:]}"}
        self._add(family, configuration, what, values)


class Failure(Exception):
    """What a node said."""


class Bench:
    """One running ComfyUI with one family's checkpoint."""

    def __init__(self, server: ComfyServer, graphs: Graphs, results: Results) -> None:
        self.server, self.graphs, self.results, self._run = server, graphs, results, 100

    def measured(self, build: Callable[[int], dict]) -> dict[str, Any]:
        """Run a graph that no run before was like, and return what the probe saw: seconds, MiB, finite."""
        self._run += 1
        result = self.server.run(build(self._run), timeout=self.results.left() + 30)
        if not result.ok:
            raise Failure(result.error or json.dumps(result.node_errors))
        return json.loads(result.outputs["end"]["text"][0])

    def latents(self, run: int, guided: bool, steps: int, **settings: Any) -> torch.Tensor:
        """The samples of a seed."""
        result = self.server.run(self.graphs.sampling(run, guided, steps, **settings), self.results.left() + 30)
        if not result.ok:
            raise Failure(result.error or json.dumps(result.node_errors))
        record = result.outputs["saved"]["latents"][0]
        return load_file(self.server.base / "output" / record["subfolder"] / record["filename"])["latent_tensor"]


def main() -> None:
    """Parse the command line, measure, and end with an error where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--small", action="store_true", help="the tests' small networks")
    parser.add_argument("--families", nargs="+", choices=FULL.families, default=list(FULL.families))
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--file", type=Path, default=Path("bench-output/device.json"))
    options = parser.parse_args()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    if not options.small and not torch.cuda.is_available():
        raise SystemExit("There is no graphics card that torch can use; --small tries the command on the CPU.")
    results, scale = Results(options.file, options.minutes), SMALL if options.small else FULL
    print(f"{card()}, torch {torch.__version__}")
    references: dict[str, torch.Tensor] = {}
    for family in options.families:
        for configuration in options.configurations:
            measure(family, configuration, scale, results, references)
    failed = [row for row in results.rows if str(row.get("result", "")).startswith("failed")]
    raise SystemExit(f"{len(failed)} of {len(results.rows)} parts failed." if failed else 0)


def measure(
    family: str, configuration: str, scale: Scale, results: Results, references: dict[str, torch.Tensor]
) -> None:
    """All parts of one family in one ComfyUI; trainings and the rest only in the first configuration."""
    kind, side = scale.families[family]

    def keep(what: str, work: Callable[[], dict[str, Any]]) -> None:
        results.part(family, configuration, what, work)

    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compinv-device-")))
        server = ComfyServer(base, *CONFIGURATIONS[configuration], card=torch.cuda.is_available())
        stack.callback(server.stop)
        keep("start", lambda: started(server, kind, side))
        if not server.is_running:
            return
        graphs = Graphs(server.get("/object_info"), f"{kind}.safetensors", "photo.png", side)
        bench, first = Bench(server, graphs, results), configuration == "as it is"
        for batch in (1, 4) if first and family == "SD 1.5" else (1,):
            keep(f"sampling, batch {batch}", partial(sampling, bench, scale.steps, batch))
        keep("one guided step", lambda: one_step(bench, references, family))
        if not first:
            return
        for method in TRAINERS:
            keep(method, partial(training, bench, family, method, *scale.trained[method]))
        keep("recording", lambda: bench.measured(lambda run: graphs.recorded(run, scale.steps)))
        keep("detector", lambda: bench.measured(lambda run: graphs.detecting(run, "compinv/detectors/random")))
        keep("stop and resume", partial(resuming, bench, 2 * scale.trained["textual inversion"][1]))


def started(server: ComfyServer, kind: str, side: int) -> dict[str, Any]:
    """Start ComfyUI with the pack, the probe, a checkpoint of random weights, a photo and a detector."""
    begun, base = time.monotonic(), server.base
    (base / "custom_nodes" / "bench-probe").symlink_to(Path(__file__).with_name("probe"), target_is_directory=True)
    server.add_checkpoint(checkpoints.build(kind), f"{kind}.safetensors")
    pictures.photo(base / "input" / "photo.png", 1, side, side)
    detector_files.save_detr(base / "models" / "compinv" / "detectors" / "random")
    server.start()
    return {"seconds": time.monotonic() - begun}


def sampling(bench: Bench, steps: int, batch: int) -> dict[str, Any]:
    """Unguided against guided sampling, in turn; the first of each warms up."""
    sides: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for _ in range(3):
        for guided, seen in sides.items():
            seen.append(bench.measured(lambda run, g=guided: bench.graphs.sampling(run, g, steps, batch)))
    unguided, guided = (statistics.median(each["seconds"] for each in seen[1:]) for seen in sides.values())
    return {
        "unguided": unguided,
        "guided": guided,
        "ratio": guided / unguided,
        "unguided_mib": max(each["mib"] for each in sides[False]),
        "guided_mib": max(each["mib"] for each in sides[True]),
        "finite": all(each["finite"] for seen in sides.values() for each in seen),
    }


def one_step(bench: Bench, references: dict[str, torch.Tensor], family: str) -> dict[str, Any]:
    """How one update moves the picture, against the first configuration's; strength 0 must move nothing."""
    settings = {"threshold": 0.0, "max_iterations": 1, "guided_steps": 1, "guided_share": 0.0}
    plain = bench.latents(7, False, 2)
    moved = bench.latents(7, True, 2, **settings) - plain
    neutral = bench.latents(7, True, 2, **settings | {"strength": 0.0})
    reference = references.setdefault(family, moved)
    return {
        "finite": bool(moved.isfinite().all()),
        "moved": float(moved.norm() / plain.norm()),
        "neutral": bool(torch.equal(neutral, plain)),
        "cosine_with_first": float(torch.cosine_similarity(moved.flatten(), reference.flatten(), dim=0)),
    }


def training(bench: Bench, family: str, method: str, few: int, many: int) -> dict[str, Any]:
    """Steps a second, from a short and a longer training, so that loading counts for nothing."""
    memory = {"train_rank": 16, "gradient_checkpointing": True} if family == "SDXL" and method == "DreamBooth" else {}
    name = method.replace(" ", "-").lower()
    first = bench.measured(lambda run: bench.graphs.training(method, f"{name}-a", few, run, **memory))
    second = bench.measured(lambda run: bench.graphs.training(method, f"{name}-b", many, run, **memory))
    rate = (many - few) / max(second["seconds"] - first["seconds"], 1e-6)
    return {"steps_a_second": rate, "whole": second["seconds"], "mib": second["mib"]}


def resuming(bench: Bench, steps: int) -> dict[str, Any]:
    """A training that is stopped and goes on ends in the word of one that was not."""
    method, base = "textual inversion", bench.server.base
    stopped = bench.server.queue(bench.graphs.training(method, "halted", steps, 1, save_every=1, resume=True))
    while not any((base / "output" / "compinv" / "runs").rglob("*halted*/*.safetensors")):
        bench.results.left()
        time.sleep(0.05)
    bench.server.interrupt()
    was_stopped = bench.server.wait(stopped).interrupted
    bench.measured(lambda run: bench.graphs.training(method, "halted", steps, run, save_every=1, resume=True))
    bench.measured(lambda run: bench.graphs.training(method, "whole", steps, run, save_every=1))
    files = (base / "models" / "embeddings" / f"{name}.safetensors" for name in ("halted", "whole"))
    halted, whole = (next(iter(load_file(file).values())) for file in files)
    return {
        "stopped": was_stopped,
        "same_bits": bool(torch.equal(halted, whole)),
        "largest_difference": float((halted - whole).abs().max()),
    }


def card() -> str:
    """The name of what computes."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def shown(value: Any) -> str:
    """A value in a line."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
