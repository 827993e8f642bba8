"""One training step of each method and one guided step on a full-size SDXL with random weights, and the memory.

    python bench/full_size.py                                   # all four, in bfloat16: about 11 GB on the CPU
    python bench/full_size.py --parts guidance --size 768
    python bench/full_size.py --device cuda --size 1024 --parts textual_inversion custom_diffusion dreambooth guidance

UNet and both text encoders are built from the host's own classes; no file is read and nothing is downloaded. Every part
runs in a process of its own. The table has the memory that the models take, the highest beyond it, the seconds and what
was computed. A loss or latent that is not finite ends with an error. DreamBooth trains factors of `--rank`, as does
Custom Diffusion with `--low-rank`; whole keys and values take several GB more.

`--small` takes the small UNet and text encoders of the tests instead, to try the command itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from guidance.cost import peak_mebibytes, resident_bytes  # noqa: E402

PARTS = ("textual_inversion", "custom_diffusion", "dreambooth", "guidance")
PROMPT, PHRASES = "a cat and a ball", ("a cat", "a ball")


def main() -> None:
    """Parse the command line; run a part, or each in a process of its own."""
    options = parse_options()
    if options.alone:
        print(json.dumps(measure(options.parts[0], options)))
        return
    print(f"SDXL{', small' if options.small else ''}, bfloat16, {options.size}×{options.size}, {options.device}")
    print(f"\n{'':22}{'models MiB':>12}{'peak MiB':>10}{'seconds':>9}  result")
    for part in options.parts:
        row = child(part)
        print(f"{part:22}{row['models']:12.0f}{row['peak']:10.0f}{row['seconds']:9.1f}  {row['result']}", flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--size", type=int, default=512, help="side of photo and picture in pixels")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rank", type=int, default=16, help="of the factors that DreamBooth trains")
    parser.add_argument("--low-rank", action="store_true", help="Custom Diffusion trains factors, too")
    parser.add_argument("--optimizer", default="adafactor", help="of Custom Diffusion and DreamBooth")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--small", action="store_true", help="the tests' small networks")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(part: str) -> dict[str, Any]:
    """Run this command again for one part."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", "--parts", part]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Build the models, run the part, and return memory, seconds and what came out."""
    from support import locations

    locations.start_in_process(Path(tempfile.mkdtemp(prefix="compinv-full-size-")), card=options.device == "cuda")
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    before = resident_bytes()
    model, clip, vae = build(options.small)
    held = torch.cuda.memory_allocated() if options.device == "cuda" else resident_bytes() - before
    run = guided(model, clip, options) if part == "guidance" else trained(part, (model, clip, vae), options)
    found: list[str] = []
    start = time.perf_counter()
    peak = peak_mebibytes(lambda: found.append(run()))
    return {"models": held / 2**20, "peak": peak, "seconds": time.perf_counter() - start, "result": found[0]}


def build(small: bool) -> tuple[Any, Any, Any]:
    """Return MODEL, CLIP and VAE of random weights in bfloat16."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import torch

    from support import checkpoints

    shape: dict[str, Any] = {**checkpoints.SHARED_UNET, **checkpoints.UNETS["sdxl" if small else "sdxl_full"]}
    shape.pop("num_heads")  # the host's own description adds the heads
    shape.pop("num_head_channels")
    config = (comfy.supported_models.Segmind_Vega if small else comfy.supported_models.SDXL)(shape)
    config.set_inference_dtype(torch.bfloat16, None)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = config.get_model({}, device=offload)
        checkpoints.initialise(network.diffusion_model)
        model = comfy.model_patcher.ModelPatcher(network, load_device=device, offload_device=offload)
        few = checkpoints.text_options("sdxl") if small else {}
        clip = comfy.sd.CLIP(config.clip_target(), model_options={**few, "dtype": torch.bfloat16}, disable_dynamic=True)
        checkpoints.initialise(clip.cond_stage_model)
        autoencoder = checkpoints.autoencoder_state(0.13025)
        vae = comfy.sd.VAE(sd=autoencoder)
    return model, clip, vae


def trained(part: str, loaded: tuple[Any, Any, Any], options: argparse.Namespace) -> Callable[[], str]:
    """Return one training step on one photo, with one class picture where the method has them."""
    import torch

    from compinv_core.host.learning.train import train_concepts
    from compinv_core.learning.concept import Concept
    from compinv_core.learning.settings import InversionConfig
    from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig

    generator = torch.Generator().manual_seed(0)
    photo, of_class = torch.rand(2, 1, options.size, options.size, 3, generator=generator)
    short: dict[str, Any] = {"steps": 1, "batch_size": 1, "save_every": 0}
    tuning = {**short, "num_class_images": 1, "gradient_checkpointing": True, "optimizer": options.optimizer}
    config: InversionConfig = {
        "textual_inversion": lambda: InversionConfig(**short),
        "custom_diffusion": lambda: CustomDiffusionConfig(**tuning, train_rank=options.rank if options.low_rank else 0),
        "dreambooth": lambda: DreamBoothConfig(**tuning, train_rank=options.rank),
    }[part]()
    concept = Concept.to_learn(
        {"name": "my-cat", "superclass": "cat"}, photo, class_images=of_class if config.method.trains_model else None
    )

    def step() -> str:
        with torch.inference_mode():
            result = train_concepts(*loaded, config, [concept])
        require_finite(torch.tensor(result.losses), result.concepts[0].vectors)
        return f"loss {result.losses[0]:.4f}"

    return step


def guided(model: Any, clip: Any, options: argparse.Namespace) -> Callable[[], str]:
    """Return a sampling of one step, which is guided with one update, without classifier-free guidance."""
    import comfy.sample
    import torch

    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout(PHRASES, ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)), options.size, options.size)
    config = GuidanceConfig(threshold=0.0, max_iterations=1, guided_steps=1)
    noise = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator().manual_seed(0))
    records: list[Any] = []

    def step() -> str:
        with torch.inference_mode():
            patched, positive = apply_layout_guidance(model, clip, PROMPT, layout, config, records.append)
            samples = comfy.sample.sample(
                patched, noise, 1, 1.0, "euler", "normal", positive, positive, torch.zeros_like(noise),
                disable_pbar=True, seed=0,
            )  # fmt: skip
        require_finite(samples, torch.tensor(records[0].losses))
        return f"location loss {records[0].losses[0][0]:.4f}, {records[0].updates[0]} update"

    return step


def require_finite(*tensors: Any) -> None:
    """End the command when anything is not finite."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise SystemExit("The result is not finite.")


if __name__ == "__main__":
    main()
