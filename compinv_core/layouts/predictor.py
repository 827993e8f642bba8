"""The layout predictor (Eq. 8): where two concepts stand in a picture, from their token features alone.

In generated pictures of "X and Y" it is nearly a coin toss which of the two stands on the left, and a regression that
averages both outcomes puts both boxes into the middle. So the prediction has two parts: *which* one stands on the left,
and *where* a concept's box is when it does; a box on the right is the mirror image of one on the left.

Symbols: u, v (D,) features of the two concepts; s(u) how strongly a concept tends to the right; g(u, v) the box
``(cx, cy, w, h)`` of u when u stands on the left of v.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from ..basics.content import ByContent
from ..basics.errors import UserError
from ..boxes.geometry import centres_to_corners, inside_picture, mirrored, separate
from ..boxes.layout import Box

FEATURES = ("refined", "raw")
"""Token features: after the text encoder, in the sentence (the paper), or its input embeddings."""
SIDE_BY_SIDE = "side-by-side"

# A concept's own noun says more of its box than its neighbour does. Without this head start the network learns single
# pairs by heart, and pairs that it has not seen come out wrong.
_NEIGHBOUR_SHARE = 0.2

PairFeatures = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]


class PairNetwork(nn.Module):
    """Features of two concepts to their boxes; swapping the concepts swaps the boxes, by construction.

    Parameters
    ----------
    width : int
        Of the features, D.
    dropout : float, default 0.1
        Acts in training mode only.
    """

    def __init__(self, width: int, hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.own = nn.Linear(width, hidden)
        self.other = nn.Linear(width, hidden)
        self.body = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.GELU())
        self.box = nn.Linear(hidden, 4)
        self.side = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.side.weight)
        nn.init.zeros_(self.box.weight)
        # Half of the picture, on the left: where untrained boxes do least harm.
        self.box.bias.data = torch.logit(torch.tensor([0.27, 0.5, 0.4, 0.5]))

    def left_box(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return g(u, v), the box (..., 4) of a concept when it stands on the left of the other; centres in (0, 1)."""
        context = _NEIGHBOUR_SHARE * self.other(_standard(other))
        return self.box(self.body(self.own(_standard(own)) + context)).sigmoid()

    def order(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the logit that the first concept stands on the left of the second.

        A difference of one number per concept (Bradley and Terry's model): swapping changes the sign, and three
        concepts never stand in a circle.
        """
        return (self.side(_standard(second)) - self.side(_standard(first))).squeeze(-1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the boxes of both concepts (B, D), corners (B, 4) each, which may reach over the picture's edge.

        Where nothing tells the two apart, the first is on the left.
        """
        own, other = (centres_to_corners(box) for box in (self.left_box(first, second), self.left_box(second, first)))
        first_left = (self.order(first, second) >= 0)[..., None]
        return (
            torch.where(first_left, own, mirrored(own)),
            torch.where(first_left, mirrored(other), other),
        )


@dataclass(frozen=True, eq=False)
class LayoutPredictor(ByContent):
    """A trained predictor, as it flows between nodes.

    Attributes
    ----------
    name : str
        For messages.
    network : PairNetwork
        In evaluation mode, on the CPU.
    vocabulary : tuple of str
        The nouns it was trained on.
    features : {"refined", "raw"}
    template : str
        The sentence with two ``{}`` in which refined features are taken.
    text_encoder : str
        Fingerprint of the text encoder it was trained with.
    metadata : mapping of str to str
        Detector, size of the data set, validation IoU and whatever else is to be remembered.
    """

    name: str
    network: PairNetwork
    vocabulary: tuple[str, ...]
    features: str
    template: str
    text_encoder: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", dict(self.metadata))

    @property
    def width(self) -> int:
        """Width of the token features it expects, D."""
        return self.network.width


@dataclass(frozen=True)
class SideBySide:
    """No predictor at all: equal boxes in a row, in the order of the phrases."""

    name: str = SIDE_BY_SIDE


AnyPredictor = LayoutPredictor | SideBySide


@torch.no_grad()
def predict_boxes(network: PairNetwork, count: int, pair_features: PairFeatures) -> tuple[Box, ...]:
    """Predict one box for each of N concepts.

    Two concepts are Eq. 8. Of more, every pair is predicted, each concept gets the mean of its boxes, and boxes that
    overlap are moved apart.

    Parameters
    ----------
    count : int
        N, at least 2.
    pair_features : callable (i, j) -> (Tensor (D,), Tensor (D,))
        Features of concepts i < j, seen as a pair.

    Returns
    -------
    tuple of (x0, y0, x1, y1), length N
        Inside the picture.
    """
    found: list[list[torch.Tensor]] = [[] for _ in range(count)]
    for i, j in itertools.combinations(range(count), 2):
        first, second = pair_features(i, j)
        for index, box in zip((i, j), network(first[None], second[None]), strict=True):
            found[index].append(box[0])
    boxes = inside_picture(torch.stack([torch.stack(each).mean(0) for each in found]).double())
    if count > 2:
        boxes = separate(boxes)
    return tuple((row[0], row[1], row[2], row[3]) for row in boxes.tolist())


def nearest_noun(vector: torch.Tensor, words: Sequence[str], vectors: torch.Tensor) -> tuple[str, float]:
    """Return the noun whose embedding (N, D) has the largest cosine with a vector (D,), and that (the paper's rule)."""
    cosines = F.cosine_similarity(vectors.float(), vector.float()[None], dim=1)
    best = int(cosines.argmax())
    return words[best], float(cosines[best])


def require_width(predictor: LayoutPredictor, width: int, node_name: str) -> None:
    """Refuse a predictor that was trained on token features of another width than the text encoder at hand has."""
    if predictor.width != width:
        raise UserError(
            f'{node_name}: the predictor "{predictor.name}" expects token features {predictor.width} wide, but the '
            f"text encoder's are {width} wide; choose a predictor that was trained with this text encoder."
        )


def _standard(features: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(features, features.shape[-1:])
