"""Muon with AdamW: what trains the miniature world's networks in minutes.

Muon (K. Jordan, 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of each matrix to the nearest
orthogonal one by five Newton-Schulz steps. Library versions take one matrix at a time; here equal shapes are iterated
together, in bfloat16 on a graphics card.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each matrix of a stack (N, R, C) towards 1, float32."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.transpose(1, 2)
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.transpose(1, 2)).float()


class Muon(torch.optim.Optimizer):
    """Muon for the inner matrices and convolutions of a network, AdamW for everything else.

    Parameters
    ----------
    network
        Its parameters of two or more dimensions with at least 64 inputs and 64 outputs go to Muon, but for tables of
        embeddings. Those that need no gradient stay as they are.
    lr
        Learning rate of both, in AdamW's units (Muon's updates are scaled to the same root mean square, 0.2).
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float = 0.01, momentum: float = 0.95) -> None:
        tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
        matrices, others = [], []
        for p in network.parameters():
            if not p.requires_grad:
                continue
            inner = p.ndim >= 2 and p.shape[0] >= 64 and p[0].numel() >= 64 and id(p) not in tables
            (matrices if inner else others).append(p)
        super().__init__(
            [{"params": matrices, "muon": True}, {"params": others, "muon": False}],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": (0.9, 0.98)},
        )

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            (self._step_muon if group["muon"] else self._step_adamw)(group)

    def _step_muon(self, group: dict) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            by_shape[p.shape[0], p[0].numel()].append(p)
        for shape, ps in by_shape.items():
            grads = torch.stack([p.grad.reshape(shape) for p in ps])
            state = self.state[ps[0]]
            if not state:
                state["momentum"] = torch.zeros_like(grads)
            state["momentum"].mul_(group["momentum"]).add_(grads)
            updates = orthogonalise(grads.add_(state["momentum"], alpha=group["momentum"]))
            scale = 0.2 * max(shape) ** 0.5
            torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(
                ps, [u.reshape(p.shape) for u, p in zip(updates, ps, strict=True)], alpha=-group["lr"] * scale
            )

    def _step_adamw(self, group: dict) -> None:
        b1, b2 = group["betas"]
        ps = [p for p in group["params"] if p.grad is not None]
        if not ps:
            return
        grads, state = [p.grad for p in ps], self.state[ps[0]]
        if not state:
            state.update(step=0, mean=[torch.zeros_like(p) for p in ps], square=[torch.zeros_like(p) for p in ps])
        state["step"] += 1
        torch._foreach_lerp_(state["mean"], grads, 1 - b1)
        torch._foreach_mul_(state["square"], b2)
        torch._foreach_addcmul_(state["square"], grads, grads, 1 - b2)
        roots = torch._foreach_sqrt(torch._foreach_div(state["square"], 1 - b2 ** state["step"]))
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_addcdiv_(ps, state["mean"], roots, -group["lr"] / (1 - b1 ** state["step"]))
