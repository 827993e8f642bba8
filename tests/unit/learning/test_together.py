"""Words learned side by side: each is what it is alone, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from compinv_core.learning.condition import Condition
from compinv_core.learning.inversion import Inversion, Subject
from compinv_core.learning.pictures.encoded import InversionData
from compinv_core.learning.settings import InversionConfig
from compinv_core.learning.together import Request, Together
from compinv_core.semantic.anchors import Anchors
from compinv_core.semantic.context import Surroundings
from compinv_core.semantic.learned_token import LearnedToken
from compinv_core.semantic.recoding import AnchorRecoder
from compinv_core.training.events import Event
from compinv_core.training.loop import LoopSettings, train
from compinv_core.training.together import Course, train_together
from compinv_core.training.watch import ALL_STEPS, BEST, LAST, NO_LONGER, Watch

WIDTH = 6
ANCHORS = Anchors(
    ("cat", "dog", "bird"), torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(9)), ((1,), (2,), (3,))
)
# Settings of the words, how many vectors they have, and whether they have anchors and masks. The one of the preset is
# learned from samples of the posterior, the one with a context weight has sentences around it.
WORDS: list[tuple[dict[str, Any], int, bool, bool]] = [
    ({"seed": 3, "learning_rate": 0.05, "anchor_weight": 0.3}, 1, True, False),
    ({"seed": 3, "learning_rate": 0.02, "batch_size": 3}, 2, False, False),
    ({"seed": 4, "hold": "radius", "radius": 0.3, "template": "style", "recode_every": 2}, 1, True, True),
    ({"seed": 5, "steps": 17, "preset": "official_2024"}, 3, True, True),
    ({"seed": 6, "hold": "sphere", "learning_rate": 0.1, "context_weight": 0.5}, 1, True, False),
]


class Denoiser:
    """A stand-in for the diffusion model that looks at each picture alone, and remembers how many came at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        self.sizes.append(len(x))
        return torch.tanh(x + condition.tokens[:, 0, :4].reshape(-1, 4, 1, 1)) * (1 + t.view(-1, 1, 1, 1) / 10), noise


def encode(index: int, vectors: torch.Tensor) -> Condition:
    return Condition(vectors.sum(0).reshape(1, 1, WIDTH).expand(1, 77, WIDTH) * (1 + index / 10))


def a_word(
    number: int, denoise: Callable, settings: dict[str, Any], vectors: int, with_anchors: bool, masked: bool
) -> Inversion:
    """A task in float64, as far as the settings allow the loss in float32."""
    config = InversionConfig(**{"steps": 30, "batch_size": 2, "learning_rate": 0.05, "recode_every": 0, **settings})
    generator = torch.Generator().manual_seed(100 + number)
    latents = torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(3, 1, 2, 2, generator=generator, dtype=torch.float64) if masked else None
    spread = torch.full_like(latents, 0.5) if config.is_official else None
    initial = torch.randn(vectors, WIDTH, generator=generator, dtype=torch.float64)
    recoder = AnchorRecoder(ANCHORS, number % 3, vectors, config.recoder_settings()) if with_anchors else None
    token = LearnedToken(initial, recoder, config.reduction, config.bounds)
    around = None
    if config.context_weight:
        around = Surroundings(
            lambda index, vectors: encode(index, vectors).tokens,
            lambda index: torch.ones(1, 77, WIDTH) + index,
            [([0], [1]), ([2, 3], [4, 5])],
        )
    data = InversionData(latents, weights, spread=spread)
    return Inversion(config, [Subject(token, data, encode, surroundings=around)], 10, denoise)


def words(denoise: Callable) -> list[Inversion]:
    return [a_word(number, denoise, *word) for number, word in enumerate(WORDS)]


def side_by_side(tasks: list[Inversion], denoise: Callable, most: int | None = None, **more: Any) -> list[Course]:
    settings = [task.config.loop_settings(False) for task in tasks]
    return train_together(tasks, settings, Together(tasks, denoise, most).losses, **more)


@pytest.mark.parametrize(("most", "sizes"), [(None, [11]), (5, [5, 4, 2]), (2, [2, 3, 2, 2, 2])])
def test_every_word_is_exactly_what_it_is_alone(most: int | None, sizes: list[int]) -> None:
    denoise = Denoiser()
    alone, together = words(denoise), words(denoise)
    histories = [train(task, task.config.loop_settings(False)) for task in alone]
    denoise.sizes.clear()
    courses = side_by_side(together, denoise, most)
    # All words take 17 steps, and then those that have more go on.
    assert denoise.sizes[: len(sizes)] == sizes and sum(denoise.sizes) == 17 * 11 + 13 * 9
    for one, other, history, course in zip(alone, together, histories, courses, strict=True):
        assert other.subjects[0].token.vectors.dtype == torch.float64
        mine, its = one.state_tensors(), other.state_tensors()
        assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)
        assert course.history == history and not course.told and not course.failed
    assert len({float(task.subjects[0].token.vectors.detach().sum()) for task in together}) == len(WORDS)


def spoil(task: Inversion, factor: Callable[[int], float]) -> None:
    """Multiply the photos of each batch by something."""
    draw = task.request

    def request(batch: int, generator: torch.Generator) -> Request:
        drawn = draw(batch, generator)
        (asked,) = drawn.asked
        return replace(drawn, asked=[replace(asked, latents=asked.latents * factor(batch))])

    task.request = request  # type: ignore[method-assign]


@pytest.mark.parametrize(("begins", "factor", "kept"), [(25, float("nan"), 21), (80, 1e6, 61)])
def test_a_word_that_comes_apart_ends_at_its_last_sound_vectors(begins: int, factor: float, kept: int) -> None:
    def denoise(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        return x + condition.tokens[:, 0, :4].reshape(-1, 4, 1, 1), noise

    def tasks() -> list[Inversion]:
        made = [a_word(number, denoise, {"steps": 120, "seed": number}, 1, True, False) for number in range(3)]
        spoil(made[1], lambda batch: factor if batch >= begins else 1.0)
        return made

    alone, together = tasks(), tasks()
    histories = [train(task, task.config.loop_settings(False)) for task in alone]
    courses = side_by_side(together, denoise)
    for one, other, history, course in zip(alone, together, histories, courses, strict=True):
        assert torch.equal(one.subjects[0].token.vectors, other.subjects[0].token.vectors)
        assert course.history == history and not course.failed
    assert [len(course.history["loss"]) for course in courses] == [120, kept, 120]
    assert f"word of step {kept} was kept" in courses[1].told and not courses[0].told and not courses[2].told


def test_a_word_that_was_never_sound_fails_and_the_others_go_on() -> None:
    denoise = Denoiser()
    tasks = words(denoise)
    spoil(tasks[0], lambda batch: float("nan"))
    courses = side_by_side(tasks, denoise)
    assert [course.failed for course in courses] == [True, False, False, False, False]
    assert "lower learning_rate" in courses[0].told
    assert [len(course.history["loss"]) for course in courses[1:]] == [30, 30, 17, 30]


def test_an_overflow_in_half_precision_drops_the_step_of_its_own_word_only() -> None:
    denoise = Denoiser()
    alone, together = words(denoise), words(denoise)
    for tasks in (alone, together):
        spoil(tasks[1], lambda batch: float("nan") if batch == 5 else 1.0)
    settings = [LoopSettings(12, task.config.seed, scale_loss=True) for task in alone]
    for task, each in zip(alone, settings, strict=True):
        train(task, each)
    courses = train_together(together, settings, Together(together, denoise).losses)
    assert [torch.isfinite(torch.tensor(course.history["loss"])).all().item() for course in courses] == [
        True, False, True, True, True,
    ]  # fmt: skip
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.subjects[0].token.vectors, other.subjects[0].token.vectors)
        assert torch.isfinite(other.subjects[0].token.vectors).all()


def test_every_word_is_measured_kept_and_ended_as_it_is_alone() -> None:
    denoise = Denoiser()
    alone, together = words(denoise), words(denoise)

    def watches(tasks: list[Inversion]) -> list[Watch | None]:
        def of(task: Inversion, keep: str, stop: str) -> Watch:
            falling = count(0, -1)
            return Watch(lambda: (float(next(falling)), task.steady_loss()), 3, keep, stop)

        # The fifth word is not measured.
        ways = [(LAST, ALL_STEPS), (BEST, ALL_STEPS), (LAST, NO_LONGER), (BEST, NO_LONGER)]
        return [*(of(task, *way) for task, way in zip(tasks, ways, strict=False)), None]

    own, others = watches(alone), watches(together)
    heard: list[list[str]] = [[] for _ in alone]
    histories = [
        train(task, task.config.loop_settings(False), sink=lambda event, to=to: to.append(event.sentence), watch=watch)
        for task, watch, to in zip(alone, own, heard, strict=True)
    ]
    courses = side_by_side(together, denoise, watches=others)
    for one, other, history, course, said in zip(alone, together, histories, courses, heard, strict=True):
        assert torch.equal(one.subjects[0].token.vectors, other.subjects[0].token.vectors)
        assert course.history == history and course.told == " ".join(filter(None, said))
    assert [watch.rows if watch else [] for watch in own] == [watch.rows if watch else [] for watch in others]
    assert [len(course.history["loss"]) for course in courses] == [30, 30, 24, 17, 30]
    assert [watch.result_step if watch else 0 for watch in others] == [30, 18, 24, 15, 0]
    assert [course.told[:14] for course in courses] == ["", "Step 18 of 30 ", "", "Step 15 of 17 ", ""]


def test_steps_are_reported_and_the_stop_button_is_asked() -> None:
    denoise = Denoiser()
    tasks, heard, asked = words(denoise), [], []

    def hear(event: Event) -> None:
        heard.append((event.work, event.step, event.total))

    side_by_side(tasks, denoise, sink=hear, ask=lambda: asked.append(True))
    assert heard == [("training", step, 30) for step in range(31)] and len(asked) == 30
