"""Drawing pictures for a batch: mirrored ones, and samples of the autoencoder's posterior."""

from __future__ import annotations

import torch

from compinv_core.learning.condition import Condition
from compinv_core.learning.inversion import Inversion, Subject
from compinv_core.learning.pictures.encoded import ClassData, Encoded, InversionData
from compinv_core.learning.settings import InversionConfig
from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
from compinv_core.semantic.learned_token import LearnedToken

LATENTS = torch.arange(4.0).reshape(4, 1, 1, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pictures_are_drawn_as_the_generator_says_and_nothing_else_is_drawn() -> None:
    ours, theirs = generator(), generator()
    plain = Encoded(LATENTS)
    rows = plain.draw(5, ours)
    assert torch.equal(rows, torch.randint(4, (5,), generator=theirs))
    assert torch.equal(plain.take(rows, ours), LATENTS[rows])
    assert torch.equal(ours.get_state(), theirs.get_state())


def test_half_of_the_pictures_are_mirror_images() -> None:
    ours, theirs = generator(), generator()
    rows = Encoded(LATENTS, mirrored=True).draw(1000, ours)
    pictures, mirrored = (torch.randint(2, (1000,), generator=theirs) for _ in range(2))
    assert torch.equal(rows, pictures + 2 * mirrored)
    # Four standard deviations of 1000 fair throws are 63.
    assert abs(int((rows >= 2).sum()) - 500) < 63 and set(rows.tolist()) == {0, 1, 2, 3}


def test_every_taking_is_another_sample_of_the_posterior() -> None:
    spread = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1)
    encoded, rows, ours = Encoded(LATENTS, spread=spread), torch.tensor([0, 3, 3]), generator()
    taken = encoded.take(rows, ours)
    noise = torch.randn((3, 1, 1, 1), generator=generator()).flatten()
    assert torch.equal(taken.flatten(), torch.stack([torch.tensor(0.0), 3 + 3 * noise[1], 3 + 3 * noise[2]]))
    assert not torch.equal(encoded.take(rows, ours)[1:], taken[1:])
    many = encoded.take(torch.full((10_000,), 2), ours)
    # Standard errors of mean and deviation are .02 and .014.
    assert abs(float(many.mean()) - 2) < 0.08 and abs(float(many.std()) - 2) < 0.06


def test_a_batch_takes_photos_and_class_pictures_so() -> None:
    seen: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        seen.append(x)
        return x * condition.tokens.mean(), noise

    spread = torch.full((4, 1, 1, 1), 0.5)
    data = InversionData(LATENTS, spread=spread, mirrored=True)
    pictures = ClassData(LATENTS + 10, Condition(torch.ones(1, 77, 3)), spread=spread, mirrored=True)
    token = LearnedToken(torch.ones(1, 3))
    subject = Subject(token, data, lambda index, vectors: Condition(vectors.expand(1, 77, 3)), pictures)
    config = CustomDiffusionConfig(preset="official_2024", batch_size=2)
    Inversion(config, [subject], 10, denoise).loss(0, generator())
    draws = generator()
    torch.randint(len(config.sentences), (1,), generator=draws)
    photos, photos_mirrored, classes, classes_mirrored = (torch.randint(2, (2,), generator=draws) for _ in range(4))
    means = torch.cat([photos + 2 * photos_mirrored, classes + 2 * classes_mirrored + 10])
    noise = torch.cat([torch.randn((2, 1, 1, 1), generator=draws) for _ in range(2)]).flatten()
    assert torch.equal(seen[0].flatten(), means + 0.5 * noise)


def test_only_the_methods_that_train_the_model_mirror_and_only_under_the_preset() -> None:
    kinds = (InversionConfig, CustomDiffusionConfig, DreamBoothConfig)
    assert [kind(preset="official_2024").mirrors for kind in kinds] == [False, True, True]
    assert not any(kind().mirrors or kind().is_official for kind in kinds)
