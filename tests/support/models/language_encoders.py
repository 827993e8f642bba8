"""Text encoders that are language models, in the host's own classes, small and with random weights.

The widths are small, everything else is the host's: tokenizer and vocabulary, chat template, attention mask, layers,
and what it takes of their output. A learned vector is put in the place of a token, and a number made of the output is
differentiated by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WIDTH = 32
_LLAMA = dict(
    hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
)
_T5 = dict(d_model=WIDTH, d_ff=48, d_kv=8, num_heads=4, num_layers=3)
_CPU = torch.device("cpu")

Rows = list[tuple[Any, float]]
"""The first chunk of a prompt: token id, or vector in its place, and weight."""


@dataclass(frozen=True)
class LanguageEncoder:
    """A text encoder of the host with its tokenizer.

    Parameters
    ----------
    key : str
        Of its part of a tokenized prompt, and where the host's tokenizer and model keep it.
    tokenizer : Any
        The host's, for all encoders of the model.
    model : Any
        The host's class around `text`; the same object where it has none.
    text : SDClipModel
        What puts vectors in the place of tokens, over the language model.
    stand_in : int
        A special token that has no meaning in prompts.
    """

    key: str
    tokenizer: Any
    model: Any
    text: Any
    stand_in: int

    @property
    def words(self) -> Any:
        """The host's tokenizer of this encoder alone."""
        return getattr(self.tokenizer, self.key)

    def read(self, prompt: str) -> Rows:
        """Return the prompt as the host's tokenizer gives it."""
        (rows,) = self.tokenizer.tokenize_with_weights(prompt)[self.key]
        return rows

    def read_word(self, prompt: str, name: str, vectors: torch.Tensor) -> Rows:
        """Return the prompt with the vectors (k, D) of ``embedding:NAME``, the host's way where it has one.

        Where it has none, a token that no text holds is exchanged for the vectors after the host has read the prompt.
        """
        if self.words.embedding_directory is not None:
            return with_vectors(self.read(prompt), vectors)
        stand_in = self.words.inv_vocab[self.stand_in]
        rows = self.read(prompt.replace(f"embedding:{name}", stand_in * len(vectors)))
        places = [position for position, (token, _) in enumerate(rows) if token == self.stand_in]
        for position, vector in zip(places, vectors, strict=True):
            rows[position] = (vector, rows[position][1])
        return rows

    def encode(self, rows: Rows) -> torch.Tensor:
        """Return the conditioning (1, T, D), float32, by the host's whole way of encoding."""
        tokens: Any = [rows] if self.model is self.text else {self.key: [rows]}
        return self.model.encode_token_weights(tokens)[0]

    def encode_exactly(self, rows: Rows, vectors: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the last tokens of the conditioning (1, T, D), float64, with vectors (k, D) in the place of vectors.

        The host puts vectors into the row and takes the output in float32; the language model between the two computes
        in the type of its input.
        """
        row = [token for token, _ in rows]
        embeds, mask, counts, info = self.text.process_tokens([row], _CPU)
        place = vector_positions(rows)
        embeds = embeds.double().index_copy(1, torch.tensor(place), vectors[None])
        outputs = self.text.transformer(
            None,
            mask if self.text.enable_attention_masks else None,
            embeds=embeds,
            num_tokens=counts,
            intermediate_output=self.text.layer_idx,
            final_layer_norm_intermediate=self.text.layer_norm_hidden_state,
            dtype=torch.float64,
            embeds_info=info,
        )
        return outputs[0 if self.text.layer == "last" else 1][:, -tokens:]

    def norms(self) -> list[torch.nn.Module]:
        """Return the norms whose input the host adds to in place afterwards; only T5 does."""
        from comfy.text_encoders.t5 import T5LayerNorm

        return [module for module in self.text.modules() if isinstance(module, T5LayerNorm)]


def _flux(folder: str) -> tuple[str, Any, Any, str]:
    import comfy.text_encoders.flux
    import comfy.text_encoders.sd3_clip

    model = comfy.text_encoders.sd3_clip.T5XXLModel(
        device="meta", dtype=torch.float64, model_options={"t5xxl_model_config": _T5}
    )
    return "t5xxl", comfy.text_encoders.flux.FluxTokenizer(folder), model, "<extra_id_0>"


def _qwen_image(folder: str) -> tuple[str, Any, Any, str]:
    import comfy.text_encoders.qwen_image as host

    model = host.QwenImageTEModel("meta", torch.float64, {"qwen25_7b_model_config": _LLAMA})
    return "qwen25_7b", host.QwenImageTokenizer(folder), model, "<|object_ref_start|>"


def _z_image(folder: str) -> tuple[str, Any, Any, str]:
    import comfy.text_encoders.z_image as host

    model = host.ZImageTEModel("meta", torch.float64, {"qwen3_4b_model_config": _LLAMA})
    return "qwen3_4b", host.ZImageTokenizer(folder), model, "<|object_ref_start|>"


_BUILDERS = {"Flux, T5": _flux, "Qwen-Image, Qwen2.5-VL": _qwen_image, "Z-Image, Qwen3": _z_image}
NAMES = tuple(_BUILDERS)


def language_encoder(name: str, embeddings: Path) -> LanguageEncoder:
    """Build the encoder of a model with a folder of embeddings, in inference mode as the executor does.

    The host has to be started.
    """
    with torch.inference_mode():
        key, tokenizer, model, stand_in = _BUILDERS[name](str(embeddings))
        text = getattr(model, key, model)
        generator = torch.Generator().manual_seed(0)
        for part, module in text.transformer.named_children():
            # The part that looks at pictures has its full size, whatever the configuration says; it gets no memory.
            if part == "visual":
                continue
            module.to_empty(device="cpu")
            for parameter in module.parameters():
                # Scales of norms lie about 1; matrices are large enough that attention is not flat.
                scale, mean = (0.3, 0.0) if parameter.dim() > 1 else (0.1, 1.0)
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale + mean)
    return LanguageEncoder(key, tokenizer, model, text, getattr(tokenizer, key).tokenizer.get_vocab()[stand_in])


def vector_positions(rows: Rows) -> list[int]:
    """Return where in a row of tokens vectors stand."""
    return [position for position, (token, _) in enumerate(rows) if isinstance(token, torch.Tensor)]


def with_vectors(rows: Rows, vectors: torch.Tensor) -> Rows:
    """Return a row of tokens with other vectors (k, D) in the place of its k vectors."""
    changed = list(rows)
    for position, vector in zip(vector_positions(rows), vectors, strict=True):
        changed[position] = (vector, *rows[position][1:])
    return changed


def number_of(output: torch.Tensor) -> torch.Tensor:
    """Return a fixed weighted sum of an output, in which every element counts."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (output.double() * weights).sum()


def gradients(encoder: LanguageEncoder, rows: Rows, vectors: torch.Tensor, step: float = 1e-5) -> Mapping[str, Any]:
    """Differentiate a number made of the conditioning by the vectors (k, D) in a row of tokens, in three ways.

    Parameters
    ----------
    vectors : Tensor (k, D), float32
        Where the derivative is taken.
    step : float
        Of the central differences.

    Returns
    -------
    mapping of str to Tensor (k, D)
        "host": autograd through the host's whole way, in float32. "exact": autograd through its language model in
        float64. "differences": central differences of that in float64.
    """
    learned = vectors.clone().requires_grad_(True)
    output = encoder.encode(with_vectors(rows, learned))
    (host,) = torch.autograd.grad(number_of(output), learned)

    def exactly(values: torch.Tensor) -> torch.Tensor:
        return number_of(encoder.encode_exactly(rows, values, output.shape[1]))

    point = vectors.double().requires_grad_(True)
    (exact,) = torch.autograd.grad(exactly(point), point)
    differences = torch.empty_like(point)
    with torch.no_grad():
        for index in range(point.numel()):
            moved = torch.zeros(point.numel(), dtype=torch.float64)
            moved[index] = step
            moved = moved.view_as(point)
            differences.view(-1)[index] = (exactly(point + moved) - exactly(point - moved)) / (2 * step)
    return {"host": host.double(), "exact": exact, "differences": differences}


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the length of the difference as a share of the reference's length."""
    return float((value - reference).norm() / reference.norm())
