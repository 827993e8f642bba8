"""What layout guidance costs: both sides of every comparison in one run, interleaved, on a random-weight model.

    python bench/guidance/cost.py                      # full-size Stable Diffusion 1, 256×256
    python bench/guidance/cost.py --kind small --size 128 --steps 10

Prints one conditional forward of the UNet against one guidance iteration (forward and backward) of the truncated and of
the full pass, with the memory each needs beyond the model; then unguided against guided sampling. Seconds are medians:
of processor time on the CPU (with --threads 1, what an idle machine's clock would show), of wall time on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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

    from compinv_core.host.family import SD1
    from compinv_core.host.spatial.objective import AttentionObjective
    from compinv_core.spatial.settings import GuidanceConfig

    noise = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator().manual_seed(0))
    rows: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}

    def measure(denoiser, x, sigmas, extra_args, callback, disable):
        sigma = sigmas[:1]
        guider = denoiser.inner_model
        config = GuidanceConfig()
        blocks = SD1.blocks(guider.inner_model.diffusion_model, config.blocks)

        def forward() -> None:
            conditions = guider.conds["positive"]
            comfy.samplers.calc_cond_batch(guider.inner_model, [conditions], x, sigma, extra_args["model_options"])

        def iteration(truncate: bool) -> Callable[[], None]:
            objective = AttentionObjective(denoiser, extra_args, blocks, config, truncate)

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
                seconds = timed(function)
                if repeat:  # the first round warms up
                    rows.setdefault(name, []).append(seconds)
        peaks.update({name: peak_mebibytes(function) for name, function in passes.items()})
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
    print_table(rows, peaks, "conditional forward")


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
    rows: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(1, options.repeats // 2)):
        for name, function in sides.items():
            rows[name].append(timed(function))
    updates = sum(iterations) // len(rows["guided sampling"])
    peaks = {name: peak_mebibytes(function) for name, function in sides.items()}
    print_table(rows, peaks, "unguided sampling")
    print(f"{options.steps} steps with CFG; {max(1, options.steps // 5)} of them guided, {updates} iterations in all")


def guided_model(model, clip, on_step=None, **settings):
    """The model and prompt under test, with two boxes."""
    import torch

    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout(("a cat", "a ball"), ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)), 512, 512)
    with torch.inference_mode():
        return apply_layout_guidance(model, clip, PROMPT, layout, GuidanceConfig(**settings), on_step)


def timed(function: Callable[[], None]) -> float:
    """Seconds: of the processor on the CPU, which a busy machine does not lengthen; of the clock on a GPU."""
    import torch

    if not torch.cuda.is_available():
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mebibytes(function: Callable[[], None]) -> float:
    """Highest memory above the start: the allocator's count on a GPU, the process's resident pages on the CPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - start) / 2**20
    with resident_memory_follows_use():
        return watch_resident(function)


@contextlib.contextmanager
def resident_memory_follows_use() -> Iterator[None]:
    """Let glibc hand every freed tensor back to the system, which is slow: then resident pages show what is in use."""
    libc = ctypes.CDLL(None)
    mmap_threshold, usual = -3, 32 * 2**20
    libc.mallopt(mmap_threshold, 64 * 2**10)
    libc.malloc_trim(0)
    try:
        yield
    finally:
        libc.mallopt(mmap_threshold, usual)


def watch_resident(function: Callable[[], None]) -> float:
    """Run, and return the highest resident memory above the start, in MiB, looking every two milliseconds."""
    done = threading.Event()
    start = resident_bytes()
    seen = [start]

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return (max(seen) - start) / 2**20


def resident_bytes() -> int:
    """Resident memory of this process, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def print_table(rows: dict[str, list[float]], peaks: dict[str, float], reference: str) -> None:
    """Median time, ratio of medians, and highest memory of each row."""
    base = statistics.median(rows[reference])
    print(f"\n{'':32}{'seconds':>10}{'ratio':>8}{'peak MiB':>10}")
    for name, seconds in rows.items():
        median = statistics.median(seconds)
        print(f"{name:32}{median:10.3f}{median / base:8.2f}{peaks[name]:10.0f}")


if __name__ == "__main__":
    main()
