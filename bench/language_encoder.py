"""What a learned word meets in models whose text encoder is a language model.

    .venv/bin/python bench/language_encoder.py

Everything is the host's own code: tokenizers, encoder classes and diffusion transformers; the weights are random and
the widths small. The first table puts two learned vectors in a prompt and compares their gradient, through the host's
whole way of encoding in float32, and through its language model in float64, with central differences in float64. The
second says at what a gradient through the diffusion transformer fails, and where its attention can be read. The third
counts the parameters of the full-size models, which takes no memory, and what they weigh. The fourth says how the
tokenizers cut the anchors. What follows is in docs/decisions/ahead/language-encoders.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import host
from support.models import joint_transformers as joint
from support.models import language_encoders as language

PROMPT = "a photo of embedding:my-cat cat on grass"
GIBIBYTE = 2**30


def main() -> None:
    """Print the four tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    encoders = build_encoders()
    gradients_of_words(encoders)
    gradients_of_transformers()
    sizes()
    anchors(encoders)


def build_encoders() -> dict[str, language.LanguageEncoder]:
    """Build the three encoders, with a folder that holds the embedding of the prompt."""
    import torch
    from safetensors.torch import save_file

    folder = host.start() / "models" / "embeddings"
    save_file({"my-cat": torch.zeros(2, language.WIDTH)}, str(folder / "my-cat.safetensors"))
    return {name: language.language_encoder(name, folder) for name in language.NAMES}


def gradients_of_words(encoders: dict[str, language.LanguageEncoder]) -> None:
    """Differentiate by a learned word."""
    import torch

    from compinv_core.host.inference import normalise_parameters
    from compinv_core.host.text.encoder import inputs_copied

    print(f'Two learned vectors in "{PROMPT}": relative errors of their gradient')
    print(f"{'':24}{'embedding: read':>17}{'tokens':>8}{'as it is':>17}{'float64':>10}{'float32':>10}")
    vectors = torch.randn(2, language.WIDTH, generator=torch.Generator().manual_seed(1))
    for name, encoder in encoders.items():
        reads = encoder.words.embedding_directory is not None
        rows = encoder.read_word(PROMPT, "my-cat", vectors)
        normalise_parameters(encoder.text)
        fault = failure(lambda encoder=encoder, rows=rows: language.gradients(encoder, rows, vectors))
        with inputs_copied(encoder.norms()):
            found = language.gradients(encoder, rows, vectors)
        exact = language.relative_error(found["exact"], found["differences"])
        whole = language.relative_error(found["host"], found["exact"])
        print(f"{name:24}{'yes' if reads else 'no':>17}{len(rows):8}{fault:>17}{exact:10.0e}{whole:10.0e}")


def gradients_of_transformers() -> None:
    """Differentiate a transformer's output by prompt and latents, and count what looks at its attention."""
    import torch

    from compinv_core.host.computing import in_training
    from compinv_core.host.text.encoder import inputs_copied

    print("\nGradient by prompt and latents through the diffusion transformer")
    columns = ("sampling", "in_training", "norms copy", "attn1_patch", "override", "of calls")
    print(f"{'':24}" + "".join(f"{column:>17}" for column in columns))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    context = torch.randn(1, joint.TEXT_TOKENS, joint.CONTEXT_WIDTH, generator=torch.Generator().manual_seed(2))
    for name in joint.NAMES:
        network = joint.small_transformer(name)

        def differentiate(name: str = name, network: Any = network) -> None:
            inputs = [latents.clone().requires_grad_(True), context.clone().requires_grad_(True)]
            output = joint.evaluate(name, network, *inputs, {})
            for gradient in torch.autograd.grad(language.number_of(output), inputs):
                if not gradient.isfinite().all() or not gradient.any():
                    raise RuntimeError("no gradient")

        results = [failure(differentiate)]
        with in_training():
            results.append(failure(differentiate))
            with inputs_copied(joint.norms(network)):
                results.append(failure(differentiate))
        patched, overridden, calls = attention_calls(name, network, latents, context)
        print(f"{name:24}" + "".join(f"{value:>17}" for value in (*results, patched, overridden, calls)))


def attention_calls(name: str, network: Any, latents: Any, context: Any) -> tuple[int, int, int]:
    """Count how often each of the host's hooks shows attention, and how many attentions span text and picture."""
    import torch

    seen: list[int] = []
    patched: list[int] = []

    def patch(q: Any, k: Any, v: Any, **_: Any) -> dict[str, Any]:
        patched.append(q.shape[2])
        return {}

    def override(function: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(q.shape[2])
        return function(q, *args, **kwargs)

    with torch.no_grad():
        options = {"patches": {"attn1_patch": [patch]}, "optimized_attention_override": override}
        joint.evaluate(name, network, latents, context, options)
    whole = max(seen)
    return patched.count(whole), seen.count(whole), len(seen)


def failure(attempt: Any) -> str:
    """Say in a word at what an attempt fails."""
    words = {
        "no autograd formula": "no backward",
        "inplace operation": "in-place add",
        "Inference tensors": "inference tensor",
        "no gradient": "no gradient",
    }
    try:
        attempt()
    except RuntimeError as error:
        for part, word in words.items():
            if part in str(error):
                return word
        raise
    return "passes"


def sizes() -> None:
    """Count parameters."""
    import comfy.text_encoders.qwen_image
    import comfy.text_encoders.sd3_clip
    import comfy.text_encoders.z_image

    encoders = {
        "T5-XXL": comfy.text_encoders.sd3_clip.T5XXLModel,
        "Qwen2.5-VL 7B": comfy.text_encoders.qwen_image.QwenImageTEModel,
        "Qwen3 4B": comfy.text_encoders.z_image.ZImageTEModel,
    }
    counts = {name: joint.parameters(name) for name in joint.NAMES}
    for name, kind in encoders.items():
        counts[name] = sum(parameter.numel() for parameter in kind(device="meta").parameters())
    print(f"\n{'Parameters':24}{'billions':>10}{'bf16 GiB':>10}{'fp32 GiB':>10}")
    for name, count in counts.items():
        print(f"{name:24}{count / 1e9:10.2f}{count * 2 / GIBIBYTE:10.1f}{count * 4 / GIBIBYTE:10.1f}")


def anchors(encoders: dict[str, language.LanguageEncoder]) -> None:
    """Say how many of the anchors are one token, at the start of a text and inside of one."""
    from comfy.sd1_clip import SDTokenizer

    from compinv_core.words.nouns import coco80

    nouns = coco80()
    tokenizers = {"CLIP": SDTokenizer(), **{name: encoder.words for name, encoder in encoders.items()}}
    print(f"\n{f'Of {len(nouns)} anchors':24}{'one token alone':>17}{'behind a space':>17}{'the same token':>17}")
    for name, words in tokenizers.items():
        end = -1 if words.tokenizer_adds_end_token else None

        def ids(text: str, words: Any = words, end: int | None = end) -> list[int]:
            return words.tokenizer(text)["input_ids"][words.tokens_start : end]

        alone, inside = [ids(noun) for noun in nouns], [ids(f" {noun}") for noun in nouns]
        counts = [sum(len(each) == 1 for each in tokens) for tokens in (alone, inside)]
        same = sum(a == b for a, b in zip(alone, inside, strict=True))
        print(f"{name:24}" + "".join(f"{count:17}" for count in (*counts, same)))


if __name__ == "__main__":
    main()
