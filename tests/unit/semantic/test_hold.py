"""Bounds on a word's vectors: by hand, and the same whatever the schedule."""

from __future__ import annotations

import math

import pytest
import torch

from compinv_core.semantic.anchors import Anchors
from compinv_core.semantic.hold import HOLDS, Hold
from compinv_core.semantic.learned_token import LearnedToken
from compinv_core.semantic.recoding import AnchorRecoder, RecoderSettings

POINT = torch.tensor([[2.0, 0.0]])


def test_radius_by_hand() -> None:
    hold = Hold("radius", radius=0.5)
    inside, outside = torch.tensor([[2.6, 0.8]]), torch.tensor([[5.0, 4.0]])
    assert torch.equal(hold.held(inside, POINT, 9.0), inside)
    # Away by (3, 4), which is 5; allowed is half of 2.
    assert torch.allclose(hold.held(outside, POINT, 9.0), torch.tensor([[2.6, 0.8]]))


def test_direction_by_hand() -> None:
    hold = Hold("direction", angle=60.0)
    near = torch.tensor([[3.0, 3.0]])
    assert torch.allclose(hold.held(near, POINT, 4.0), 4 * torch.tensor([[0.5**0.5, 0.5**0.5]]))
    far = torch.tensor([[-1.0, -1.0]])
    expected = 4 * torch.tensor([[0.5, -math.sqrt(0.75)]])
    assert torch.allclose(hold.held(far, POINT, 4.0), expected, atol=1e-6)


@pytest.mark.parametrize("kind", HOLDS)
def test_what_is_held_stays_where_it_is(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, points = torch.randn(5, 12, generator=generator) * 3, torch.randn(5, 12, generator=generator)
    hold = Hold(kind, radius=0.7, angle=35.0)
    once = hold.held(vectors, points, 2.0)
    assert torch.allclose(hold.held(once, points, 2.0), once, atol=1e-5)
    assert torch.equal(once, vectors) == (kind == "anchor loss")
    if "radius" in kind:
        assert ((once - points).norm(dim=1) <= 0.7 * points.norm(dim=1) * (1 + 1e-5)).all()
    if kind in ("direction", "sphere"):
        assert torch.allclose(once.norm(dim=1), torch.full((5,), 2.0))
    if kind == "direction":
        angles = torch.cosine_similarity(once, points).clamp(-1, 1).acos().rad2deg()
        assert (angles <= 35 + 1e-2).all()


def test_a_vector_at_the_point_or_opposite_to_it_is_no_trouble() -> None:
    for kind in HOLDS:
        held = Hold(kind).held(torch.cat([POINT, -POINT, torch.zeros(1, 2)]), POINT.expand(3, 2), 1.0)
        assert held.isfinite().all()


def test_a_step_on_the_sphere_by_hand() -> None:
    hold = Hold("sphere", concentration=0.5, rate=0.75)
    # At (0, 2) with gradient (-1, 7): 2 x (-1, 7) - 0.5 x (1, 0) = (-2.5, 14), along the sphere (-2.5, 0), of length 1
    # (-1, 0). From (0, 1) less 0.75 of it to (0.75, 1), whose length is 1.25.
    vector, gradient = torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 7.0]])
    assert torch.allclose(hold.stepped(vector, gradient, POINT, 2.0), 2 * torch.tensor([[0.6, 0.8]]))
    # Without a gradient only the prior is left, and at its pole nothing.
    assert torch.allclose(hold.stepped(vector, 0 * gradient, POINT, 2.0), 2 * torch.tensor([[0.6, 0.8]]))
    assert torch.allclose(hold.stepped(POINT, 0 * POINT, POINT, 2.0), POINT)
    assert torch.allclose(hold.stepped(vector, gradient * math.inf, POINT, 2.0), vector)


def test_a_step_on_the_sphere_goes_down_the_posterior() -> None:
    generator = torch.Generator().manual_seed(4)
    start, goal, points = (torch.randn(3, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    norm, kappa = 1.7, 0.3

    def posterior(unit: torch.Tensor) -> torch.Tensor:
        """Loss of the word, and the negative logarithm of the von Mises-Fisher prior."""
        unit = torch.nn.functional.normalize(unit, dim=1)
        prior = -kappa * (unit * torch.nn.functional.normalize(points, dim=1)).sum()
        return ((norm * unit - goal) ** 2).sum() + prior

    unit = torch.nn.functional.normalize(start, dim=1).requires_grad_(True)
    (slope,) = torch.autograd.grad(posterior(unit), unit)
    vectors = (norm * unit).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(((vectors - goal) ** 2).sum(), vectors)
    rate = 1e-7
    stepped = Hold("sphere", concentration=kappa, rate=rate).stepped(vectors.detach(), gradient, points, norm)
    moved = (stepped - vectors.detach()) / norm / rate
    # Each vector goes its rate along its own slope, which the normalisation has made one along the sphere.
    assert torch.allclose(moved, -torch.nn.functional.normalize(slope, dim=1), atol=1e-6)
    assert torch.allclose(stepped.norm(dim=1), torch.full((3,), norm, dtype=torch.float64))


def drift(hold: Hold, steps: int, rate: float, vectors: int = 1, batch: int = 1) -> float:
    """Train against a far goal with Adam; return the mean distance from the anchor point over its length."""
    generator = torch.Generator().manual_seed(1)
    words = torch.nn.functional.normalize(torch.randn(4, 24, generator=generator), dim=1) * 0.4
    recoder = AnchorRecoder(
        Anchors(("cat", "dog", "bird", "fish"), words, ((1,), (2,), (3,), (4,))), 0, vectors,
        RecoderSettings(recode_every=0),
    )  # fmt: skip
    token = LearnedToken(words[:1].repeat(vectors, 1), recoder, hold=hold)
    goal = torch.randn(24, generator=generator) * 2
    optimiser = torch.optim.AdamW([token.parameter], rate, weight_decay=0)
    for step in range(steps):
        noise = torch.randn(batch, 24, generator=generator) * 0.3
        loss = (token.vectors.mean(0) - goal - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        token.after_step(step)
    away = token.vectors.detach() - words[0]
    return float((away.norm(dim=1) / words[0].norm()).mean())


@pytest.mark.parametrize("kind", ["radius", "direction"])
@pytest.mark.parametrize(
    "other", [{"steps": 240}, {"rate": 0.04}, {"batch": 8}, {"vectors": 2}, {"vectors": 3}, {"steps": 60}]
)
def test_the_distance_is_the_same_whatever_the_schedule(kind: str, other: dict) -> None:
    usual = {"steps": 120, "rate": 0.02}
    hold = Hold(kind, radius=0.5, angle=30.0)
    assert drift(hold, **{**usual, **other}) == pytest.approx(drift(hold, **usual), rel=0.02)


def test_without_a_bound_the_distance_depends_on_the_schedule() -> None:
    assert drift(Hold(), 240, 0.02) > 1.3 * drift(Hold(), 60, 0.02)


def test_on_the_sphere_the_word_takes_its_own_steps_of_the_norm_that_is_given() -> None:
    words = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]])
    recoder = AnchorRecoder(Anchors(("cat", "dog"), words, ((1,), (2,))), 0, 1, RecoderSettings(recode_every=0))
    hold = Hold("sphere", concentration=0.0, rate=0.01)
    token = LearnedToken(words[1:].clone(), recoder, hold=hold, norm=0.4)
    assert token.takes_own_steps and torch.allclose(token.vectors, torch.tensor([[0.0, 0.4, 0.0]]))
    assert not LearnedToken(words[1:].clone(), None, hold=hold, norm=0.4).takes_own_steps
    goal = torch.tensor([[0.0, 0.0, 1.0]])
    for step in range(200):
        token.parameter.grad = None
        (token.vectors - goal).square().sum().backward()
        token.after_step(step)
    assert torch.allclose(token.vectors, 0.4 * goal, atol=0.005)


def test_the_distance_is_a_share_of_the_anchors_length() -> None:
    vectors = torch.tensor([[2.0, 0.0], [2.0, 1.0]])
    assert Hold("radius", radius=0.7).distance(vectors, POINT.repeat(2, 1)) == (0.5, 0.7)
    assert Hold().distance(vectors, POINT.repeat(2, 1)) == (0.5, None)
    turned, allowed = Hold("direction", angle=60.0).distance(torch.tensor([[0.0, 7.0]]), POINT)
    assert (turned, allowed) == pytest.approx((math.sqrt(2), 1.0))
    assert Hold("sphere").distance(vectors[:1], POINT) == (0.0, None)


def test_a_word_tells_how_far_it_is_from_its_anchors_or_else_from_its_start() -> None:
    anchors = Anchors(("cat", "dog"), torch.tensor([[2.0, 0.0], [0.0, 2.0]]), ((1,), (2,)))
    recoder = AnchorRecoder(anchors, 0, 1, RecoderSettings())
    held = LearnedToken(torch.tensor([[2.0, 1.0]]), recoder, hold=Hold("radius", radius=0.7))
    assert held.distance() == (0.5, 0.7)
    free = LearnedToken(torch.tensor([[3.0, 4.0]]), hold=Hold("radius", radius=0.7))
    assert free.distance() == (0.0, None)
    with torch.no_grad():
        free.parameter.zero_()
    assert free.distance() == (1.0, None)
