"""Spatial inversion guidance: move each phrase's cross-attention into its box (Eq. 9) by changing the latents.

The model is a callable here, from latents to one loss per image; `host.spatial.guidance` supplies ComfyUI's.

Symbols: A_i attention map of phrase i, M_i mask of its box, L_loc the loss, x latents, σ noise level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ..basics.errors import remark
from ..boxes.places import Place, place_masks
from .attention import BlockAttention, maps_by_resolution
from .settings import LOSS_FORMS, GuidanceConfig

# Gradients of a half-precision pass are near the smallest float16 numbers; scaled losses keep them representable.
_HALF_PRECISION_SCALE = 1024.0


@dataclass(frozen=True)
class GuidedLatents:
    """What `guide_latents` did in one sampling step.

    Parameters
    ----------
    latents : Tensor, like the input
    losses : tuple of tuples of float
        For every evaluation, the loss of each of the B images before the update that followed.
    updates : tuple of int, length B
        Updates of each image.
    last_loss : tuple of float, length B
        Each image's loss at its last evaluation; to be handed to the next step where the loss is stale.
    """

    latents: torch.Tensor
    losses: tuple[tuple[float, ...], ...]
    updates: tuple[int, ...]
    last_loss: tuple[float, ...]


def location_loss(attention: torch.Tensor, masks: torch.Tensor, form: str = "linear") -> torch.Tensor:
    """How much of each phrase's attention lies outside its box (Eq. 9).

    ``L_loc = (1/N) Σ_i (1 − Σ M_i A_i / Σ A_i)`` for `form` "linear"; the mean of the squared terms for "squared".

    Parameters
    ----------
    attention : Tensor (B, N, H, W)
        Non-negative attention maps, one per image and phrase.
    masks : Tensor (N, H, W)
        1 inside the box, 0 outside; between for a soft mask.
    form : {"linear", "squared"}

    Returns
    -------
    Tensor (B,)
        In [0, 1]; differentiable with respect to `attention`. Zeros when N = 0.

    Raises
    ------
    ValueError
        When the shapes do not fit or `form` is unknown.
    """
    if form not in LOSS_FORMS:
        raise ValueError(f"form must be one of {LOSS_FORMS}, not {form!r}.")
    if attention.ndim != 4 or masks.shape != attention.shape[1:]:
        raise ValueError(
            f"attention (B, N, H, W) and masks (N, H, W) do not fit: {tuple(attention.shape)}, {tuple(masks.shape)}."
        )
    if attention.shape[1] == 0:
        return attention.sum(dim=(1, 2, 3))
    outside = 1 - in_box_mass(attention, masks)
    return (outside.square() if form == "squared" else outside).mean(dim=1)


def in_box_mass(attention: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Share (B, N) of each phrase's attention that lies inside its box: ``Σ M_i A_i / Σ A_i`` of Eq. 9; 0 for zeros.

    Arguments as in `location_loss`.
    """
    total = attention.sum(dim=(-2, -1)).clamp_min(torch.finfo(attention.dtype).tiny)
    return (attention * masks.to(attention)).sum(dim=(-2, -1)) / total


def layout_loss(
    blocks: Iterable[BlockAttention], spans: Sequence[Sequence[int]], places: Sequence[Place], config: GuidanceConfig
) -> torch.Tensor:
    """Location loss of the attention captured in one evaluation of the model.

    At each resolution, A_i is the mean over blocks, heads and the phrase's tokens. With `config.loss_per_head` every
    block and head has a loss of its own, with `config.loss_per_token` every token; a phrase has the mean of its
    tokens'. The result is the mean over resolutions, weighted by their numbers of blocks.

    Parameters
    ----------
    blocks : iterable of BlockAttention
        At least one.
    spans : sequence of sequences of int, length N
        Token positions of each phrase.
    places : sequence of Place, length N
        Where each phrase belongs.

    Returns
    -------
    Tensor (B,)
    """
    if config.loss_per_token:
        blocks, of_spans = tuple(blocks), replace(config, loss_per_token=False)
        phrases = [
            layout_loss(blocks, [(token,) for token in span], [place] * len(span), of_spans)
            for span, place in zip(spans, places, strict=True)
        ]
        return torch.stack(phrases).mean(dim=0)
    losses, counts = [], []
    for (height, width), maps in maps_by_resolution(blocks, spans, config.heads).items():
        batch, count = maps.shape[:2]
        masks = place_masks(places, height, width, truncate=config.truncated_boxes).to(maps)
        if config.loss_per_head:
            loss = location_loss(maps.flatten(0, 2), masks, config.loss).unflatten(0, (batch, -1)).mean(dim=1)
        else:
            loss = location_loss(maps.mean(dim=(1, 2)), masks, config.loss)
        losses.append(loss * count)
        counts.append(count)
    return torch.stack(losses).sum(dim=0) / sum(counts)


def guide_latents(
    latents: torch.Tensor,
    sigma: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    config: GuidanceConfig,
    last_loss: Sequence[float] | None = None,
    on_iteration: Callable[[], None] = lambda: None,
) -> GuidedLatents:
    """Improve the latents of one sampling step: ``x ← x − strength·σ²·∇_x L`` while the loss is above the threshold.

    Every image of the batch has its own loss, its own gradient and its own end.

    Parameters
    ----------
    latents : Tensor (B, C, H, W)
        x = x0 + σ·ε at this step. Not changed. May be an inference tensor.
    sigma : Tensor (B,)
        Noise level σ.
    loss_of : callable
        From latents (B, C, H, W) that require a gradient to losses (B,).
    last_loss : sequence of float, length B, optional
        `GuidedLatents.last_loss` of the step before; used where `config.stale_loss` is set.
    on_iteration : callable, optional
        Called before every evaluation; may raise to stop.

    Returns
    -------
    GuidedLatents
        `latents` is the very input where no image was updated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        scale = config.strength * _per_image(sigma.detach().clone(), latents).square()
        current = latents.detach().clone()
        known = [float("inf")] * len(latents) if last_loss is None else list(last_loss)
        active = [True] * len(latents)
        finite, sound = torch.ones(len(latents), dtype=torch.bool, device=latents.device), True
        losses: list[tuple[float, ...]] = []
        moved: list[torch.Tensor] = []
        for _ in range(config.max_iterations):
            if config.stale_loss:
                active = [
                    is_active and value > config.threshold for is_active, value in zip(active, known, strict=True)
                ]
                if not any(active):
                    break
            on_iteration()
            candidate = current.detach().requires_grad_(True)
            loss = loss_of(candidate)
            # Everything that is decided needs the loss alone, so that a graphics card is waited for once an iteration.
            seen = loss.detach().tolist()
            losses.append(tuple(seen))
            sound = sound and all(map(math.isfinite, seen))
            known = [new if wanted else old for new, old, wanted in zip(seen, known, active, strict=True)]
            if not config.stale_loss:
                active = [wanted and value > config.threshold for wanted, value in zip(active, seen, strict=True)]
                if not any(active):
                    break
            gradient = _gradient(loss, candidate)
            finite = finite & gradient.flatten(1).isfinite().all(dim=1)
            moved.append(torch.tensor(active).to(finite.device, non_blocking=True) & finite)
            current = torch.where(_per_image(moved[-1], current), current - (scale * gradient).to(current), current)
        updates = torch.stack(moved).sum(dim=0).tolist() if moved else [0] * len(latents)
        if not sound or not finite.all():
            remark("Layout guidance: loss or gradient of an image is not finite; that image is left as it is.")
    return GuidedLatents(current if any(updates) else latents, tuple(losses), tuple(updates), tuple(known))


def _gradient(loss: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    # Images do not mix inside the model, so one backward pass of the sum gives every image its own gradient.
    (gradient,) = torch.autograd.grad(loss.sum() * _HALF_PRECISION_SCALE, latents)
    return gradient / _HALF_PRECISION_SCALE


def _per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
