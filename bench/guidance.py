"""What layout guidance costs: both sides of every comparison in one run, interleaved, on a random-weight model.

    python bench/guidance.py                      # full-size Stable Diffusion 1, 256×256
    python bench/guidance.py --kind small --size 128 --steps 10

Prints one conditional forward of the UNet against one guidance iteration (forward and backward) of the truncated and of
the full pass, with the memory each needs beyond the model; then unguided against guided sampling. Times are medians.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import host  # noqa: E402

PROMPT = "a cat and a ball"


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("tiny", "small", "full"), default="full", help="size of the random model")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="timings of every single pass")
    parser.add_argument("--steps", type=int, default=10, help="steps of the samplings; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's own choice")
    options = parser.parse_args()
    host.start()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    model, clip, _ = host.load(options.kind)
    print(f"{options.kind}, {options.size}×{options.size}, {torch.get_num_threads()} threads, {model.load_device}")
    compare_passes(model, clip, options)
    if options.steps:
        compare_samplings(model, clip, options)


def compare_passes(model, clip, options: argparse.Namespace) -> None:
    """One conditional forward against one guidance iteration, truncated and full."""
    import comfy.sample
    import comfy.samplers
    import torch

    from compinv_core.guidance import GuidanceConfig
    from compinv_core.host.attention_objective import AttentionObjective

    noise = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator().manual_seed(0))
    rows: dict[str, list[tuple[float, float]]] = {}

    def measure(denoiser, x, sigmas, extra_args, callback, disable):
        sigma = sigmas[:1]
        guider = denoiser.inner_model
        config = GuidanceConfig()

        def forward() -> None:
            conditions = guider.conds["positive"]
            comfy.samplers.calc_cond_batch(guider.inner_model, [conditions], x, sigma, extra_args["model_options"])

        def iteration(truncate: bool) -> Callable[[], None]:
            objective = AttentionObjective(denoiser, extra_args, config, truncate)

            def run() -> None:
                with torch.inference_mode(False), torch.enable_grad():
                    latents = x.clone().requires_grad_(True)
                    torch.autograd.grad(objective(latents, sigma).sum(), latents)

            return run

        passes = {
            "conditional forward": forward,
            "guidance iteration, truncated": iteration(True),
            "guidance iteration, full": iteration(False),
        }
        for repeat in range(options.repeats + 1):
            for name, function in passes.items():
                timing = timed(function)
                if repeat:  # the first round warms up
                    rows.setdefault(name, []).append(timing)
        return x

    _, positive = guided_model(model, clip)
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model,
            noise,
            1.0,
            comfy.samplers.KSAMPLER(measure),
            torch.tensor([6.0, 0.0]),
            positive,
            positive,
            torch.zeros_like(noise),
            disable_pbar=True,
        )
    print_table(rows, "conditional forward")


def compare_samplings(model, clip, options: argparse.Namespace) -> None:
    """Unguided against guided sampling, with the paper's settings in the paper's proportion of steps."""
    import comfy.sample
    import torch

    noise = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator().manual_seed(0))
    iterations: list[int] = []

    def count(record) -> None:
        iterations.append(len(record.losses))

    def sampling(strength: float) -> Callable[[], None]:
        patched, positive = guided_model(
            model, clip, strength=strength, threshold=0.0, guided_steps=max(1, options.steps // 5), on_step=count
        )

        def run() -> None:
            with torch.inference_mode():
                negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
                comfy.sample.sample(
                    patched,
                    noise,
                    options.steps,
                    7.5,
                    "euler",
                    "normal",
                    positive,
                    negative,
                    torch.zeros_like(noise),
                    disable_pbar=True,
                    seed=0,
                )

        return run

    sides = {"unguided sampling": sampling(0.0), "guided sampling": sampling(30.0)}
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(max(1, options.repeats // 2)):
        for name, function in sides.items():
            rows[name].append(timed(function))
    print_table(rows, "unguided sampling")
    guided_steps, updates = max(1, options.steps // 5), sum(iterations) // len(rows["guided sampling"])
    print(f"{options.steps} steps with CFG; {guided_steps} of them guided, {updates} iterations in all")


def guided_model(model, clip, on_step=None, **settings):
    """The model and prompt under test, with two boxes."""
    import torch

    from compinv_core.guidance import GuidanceConfig
    from compinv_core.host.sampling import apply_layout_guidance
    from compinv_core.layout import Layout

    layout = Layout(("a cat", "a ball"), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)), 512, 512)
    with torch.inference_mode():
        return apply_layout_guidance(model, clip, PROMPT, layout, GuidanceConfig(**settings), on_step)


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and the highest memory in MiB above the start."""
    gc.collect()
    with PeakMemory() as memory:
        start = time.perf_counter()
        function()
        seconds = time.perf_counter() - start
    return seconds, memory.mebibytes


class PeakMemory:
    """Highest memory above the start: the allocator's count on a GPU, the process's resident pages on the CPU."""

    def __init__(self) -> None:
        self.mebibytes = 0.0
        self._done = threading.Event()

    def __enter__(self) -> PeakMemory:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            self._start = self._peak = resident_bytes()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self._peak = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._thread.join()
        self.mebibytes = (self._peak - self._start) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._peak = max(self._peak, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def print_table(rows: dict[str, list[tuple[float, float]]], reference: str) -> None:
    """Median time, ratio of medians, and highest memory of each row."""
    base = statistics.median(seconds for seconds, _ in rows[reference])
    print(f"\n{'':32}{'seconds':>10}{'ratio':>8}{'peak MiB':>10}")
    for name, timings in rows.items():
        seconds = statistics.median(seconds for seconds, _ in timings)
        peak = max(memory for _, memory in timings)
        print(f"{name:32}{seconds:10.3f}{seconds / base:8.2f}{peak:10.0f}")


if __name__ == "__main__":
    main()
