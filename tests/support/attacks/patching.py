"""Every node of the host that patches a model, in one graph with layout guidance: writes docs/compatibility.md.

Run as a script: `python tests/support/attacks/patching.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    __package__ = "support.attacks"

from .. import host
from ..locations import REPOSITORY
from ..sampling import PROMPT, encode, noise_like, sample

PAGE = REPOSITORY / "docs" / "compatibility.md"
LORA = "attacked.safetensors"
# They compile for minutes, or move a model to another card.
LEFT_OUT = {"TorchCompileModel", "SelectModelDevice", "MultiGPU_WorkUnits"}
# Defaults that would do nothing here.
SETTINGS: dict[str, dict[str, Any]] = {
    "HyperTile": {"tile_size": 32},
    "PatchModelAddDownscale": {"block_number": 1},
    "UNetCrossAttentionMultiply": {"q": 1.1, "k": 0.9},
    "UNetSelfAttentionMultiply": {"q": 1.1, "k": 0.9},
    "ModelMergeSubtract": {"multiplier": 0.5},
    "ContextWindowsManual": {"dim": 2, "context_length": 4, "context_overlap": 1},
}


@dataclass(frozen=True)
class Outcome:
    """What came of one node.

    Attributes
    ----------
    before, after : str
        Of guidance that is applied to its output, and of its being applied to a guided model; "" where all is well.
    refused : str
        Why the node itself does not go with Stable Diffusion 1, without any guidance.
    """

    name: str
    before: str = ""
    after: str = ""
    refused: str = ""


def patching_nodes() -> dict[str, Any]:
    """Return the host's own nodes with a MODEL in and a MODEL out, by their names; of merges by block that of SD1."""
    loras = host.start() / "models" / "loras"
    loras.mkdir(exist_ok=True)
    save_file(_lora(), loras / LORA)
    import nodes

    if "RescaleCFG" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.init_builtin_extra_nodes())
    found = {}
    for name, node in sorted(nodes.NODE_CLASS_MAPPINGS.items()):
        kinds = [spec[0] for specs in node.INPUT_TYPES().values() if isinstance(specs, dict) for spec in specs.values()]
        merges_others = name.startswith("ModelMerge") and node.CATEGORY.endswith("specific") and name != "ModelMergeSD1"
        if "MODEL" in kinds and "MODEL" in node.RETURN_TYPES and not (name.startswith("CompInv") or merges_others):
            found[name] = node
    return found


def applied(name: str, node: Any, model: Any) -> Any:
    """Return the model that a node makes of a model, with its defaults; raises KeyError where it needs another part."""
    values = {
        "MODEL": model, "CLIP": host.load("tiny")[1], "CONDITIONING": encode(""),
        "LATENT_OPERATION": lambda latent, **more: latent * 0.9, "LORA_MODEL": _lora(),
    }  # fmt: skip
    inputs: dict[str, Any] = {}
    for key, (kind, *options) in node.INPUT_TYPES().get("required", {}).items():
        if isinstance(kind, list) or kind == "COMBO":
            choices = kind if isinstance(kind, list) else options[0]["options"]
            inputs[key] = LORA if key == "lora_name" else choices[0]
        elif options and "default" in options[0]:
            inputs[key] = options[0]["default"]
        else:
            inputs[key] = values[kind]
    inputs |= SETTINGS.get(name, {})
    function = getattr(node, node.FUNCTION)
    if inspect.ismethod(function):
        result = function(**inputs)
        return getattr(result, "result", result)[node.RETURN_TYPES.index("MODEL")]
    return getattr(node(), node.FUNCTION)(**inputs)[node.RETURN_TYPES.index("MODEL")]


def _lora() -> dict[str, torch.Tensor]:
    weight = host.load("tiny")[0].model.diffusion_model.state_dict()[
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    ]
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.diff"
    return {key: torch.full(weight.shape, 0.01)}


def guided(model: Any, strength: float) -> tuple[Any, list]:
    """Return a model and a conditioning with guidance into two halves."""
    from compinv_core.boxes.layout import Layout
    from compinv_core.host.spatial.guidance import apply_layout_guidance
    from compinv_core.spatial.settings import GuidanceConfig

    layout = Layout(("a cat", "a ball"), ((0, 0, 0.5, 1), (0.5, 0, 1, 1)), 64, 64)
    config = GuidanceConfig(strength=strength, threshold=0.1, max_iterations=1, guided_steps=2)
    return apply_layout_guidance(model, host.load("tiny")[1], PROMPT, layout, config)


def _picture(model: Any, positive: list) -> torch.Tensor:
    return sample(model, positive, noise_like(), steps=2, cfg=4.0)


def outcome(name: str, node: Any) -> Outcome:
    """Try a node: finite, effective, and neutral to the bit at strength 0."""
    model = host.load("tiny")[0]
    with torch.inference_mode():
        try:
            patched = applied(name, node, model)
            plain = _picture(patched, encode())
        except Exception as error:
            text = f"needs {error}" if isinstance(error, KeyError) else str(error).splitlines()[0][:80]
            return Outcome(name, refused=text or type(error).__name__)
        orders = {
            "before": lambda strength: guided(patched, strength),
            "after": lambda strength: (applied(name, node, guided(model, strength)[0]), guided(model, strength)[1]),
        }
        return Outcome(name, **{order: _fault(make, plain) for order, make in orders.items()})


def _fault(make: Any, plain: torch.Tensor) -> str:
    try:
        strong, none = (_picture(*make(strength)) for strength in (3000.0, 0.0))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not strong.isfinite().all():
        return "not finite"
    if torch.equal(strong, plain):
        return "no effect"
    return "" if torch.equal(none, plain) else "not neutral at strength 0"


def page(outcomes: list[Outcome], names: Iterable[str]) -> str:
    """Return the page with the table; `names` are those of all such nodes."""
    rows = [
        f"| {each.name} | {each.before or 'yes'} | {each.after or 'yes'} |" for each in outcomes if not each.refused
    ]
    others = ", ".join(each.name for each in outcomes if each.refused)
    untried = ", ".join(sorted(set(names) - {each.name for each in outcomes}))
    return f"""# Beside the host's other nodes

Every node of ComfyUI that takes a MODEL and gives one, with its defaults, in the same graph as *Apply Layout Guidance*:
before it, and behind it. *Yes* says that the picture is finite, that guidance changes it, and that at strength 0 it is
the picture without guidance, bit for bit. `python tests/support/attacks/patching.py` writes this page,
on random weights.

| Node | before | behind |
|---|---|---|
{chr(10).join(rows)}

Not for Stable Diffusion 1, or in need of another model's part, also without guidance: {others}.

Not tried: {untried}.
"""


def main() -> None:
    """Write the page."""
    outcomes = []
    for name, node in patching_nodes().items():
        if name not in LEFT_OUT:
            outcomes.append(outcome(name, node))
            print(outcomes[-1], flush=True)
    PAGE.write_text(page(outcomes, patching_nodes()))


if __name__ == "__main__":
    main()
