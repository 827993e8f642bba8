"""Photos of any size: the size that each is brought to, what is told of it, and drawing batches of one size."""

from __future__ import annotations

import pytest
import torch

from compinv_core.learning.condition import Condition
from compinv_core.learning.inversion import Inversion, Subject
from compinv_core.learning.pictures.encoded import ClassData, InversionData
from compinv_core.learning.pictures.of_sizes import PhotosOfSizes
from compinv_core.learning.pictures.sizes import by_size, fit_for, fitted
from compinv_core.learning.tuning_settings import CustomDiffusionConfig
from compinv_core.semantic.learned_token import LearnedToken

MOST = 1024 * 1024


@pytest.mark.parametrize(
    ("size", "fit", "frame"),
    [
        # As large as the model's pictures, or smaller: as they are, but for parts of a cell.
        ((1024, 1024), (1024, 1024), (1024, 1024, 0, 0)),
        ((512, 640), (512, 640), (512, 640, 0, 0)),
        ((777, 650), (776, 648), (777, 650, 0, 1)),
        # Larger: scaled to the model's own sizes, less than 64 pixels cut off of the longer side, half at each end.
        ((1500, 1500), (1024, 1024), (1500, 1500, 0, 0)),
        ((4000, 3000), (1152, 896), (4000, 3000, 21, 0)),
        ((1080, 1920), (768, 1344), (1080, 1920, 0, 10)),
        ((2000, 1333), (1216, 832), (2000, 1333, 16, 0)),
    ],
)
def test_a_photo_keeps_its_proportions(
    size: tuple[int, int], fit: tuple[int, int], frame: tuple[int, int, int, int]
) -> None:
    found = fit_for(*size, MOST, 8)
    assert (found.height, found.width) == fit and found.frame == frame


@pytest.mark.parametrize("size", [(64, 30_000), (20_000, 90), (1025, 1024), (9000, 9000), (65, 64), (100_000, 64)])
def test_no_photo_becomes_too_large_or_nothing(size: tuple[int, int]) -> None:
    found = fit_for(*size, MOST, 8)
    assert found.height * found.width <= MOST and min(found.height, found.width) >= 64
    assert found.height % 8 == 0 == found.width % 8
    assert found.scaled[0] >= found.height and found.scaled[1] >= found.width


def test_fitting_scales_and_cuts_pictures_and_masks_alike() -> None:
    fit = fit_for(256, 192, 128 * 128, 8)
    assert (fit.height, fit.width, fit.scaled) == (128, 128, (171, 128)) and fit.frame == (256, 192, 21, 0)
    # A mask stays beside what it covers. Of 43 rows too many, 21 are cut off above.
    ramp = torch.linspace(0, 1, 256)[None, :, None].expand(1, 256, 192)
    picture, mask = fitted(ramp[..., None].expand(-1, -1, -1, 3), fit), fitted(ramp, fit)
    assert picture.shape == (1, 128, 128, 3) and mask.shape == (1, 128, 128)
    assert torch.allclose(picture[..., 0], mask) and float(mask.mean()) == pytest.approx(85 / 171, abs=1e-3)
    # Row r of the cut is row r + 21 of the scaled picture, whose middle is at (r + 21.5) / 171 of the height.
    assert float(mask[0, 0, 0]) == pytest.approx((21.5 / 171 * 256 - 0.5) / 255, abs=1e-3)


def test_a_photo_that_fits_is_not_touched() -> None:
    picture = torch.rand(1, 72, 80, 3)
    assert torch.equal(fitted(picture, fit_for(72, 80, MOST, 8)), picture)


def test_pictures_of_one_size_come_together_with_their_numbers() -> None:
    batches = [torch.zeros(2, 64, 64, 3), torch.zeros(1, 64, 96, 3), torch.zeros(1, 64, 64, 3)]
    groups = by_size(batches)
    assert {size: [number for number, _ in group] for size, group in groups.items()} == {
        (64, 64): [0, 1, 3],
        (64, 96): [2],
    }


def of_size(width: int, count: int, first: int, mask: bool = False) -> InversionData:
    """Latents (count, 1, 1, width) that hold their number, from `first`, with frames that do."""
    numbers = torch.arange(first, first + count).float()
    latents = numbers.view(-1, 1, 1, 1).repeat(1, 1, 1, width)
    weights = torch.full((count, 1, 1, width), 0.5) if mask else None
    return InversionData(latents, weights, frames=numbers[:, None].repeat(1, 4))


def test_a_batch_has_one_size_and_every_photo_the_same_chance() -> None:
    photos = PhotosOfSizes([of_size(2, 1, 0), of_size(3, 3, 1, mask=True)])
    generator = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(400):
        rows = photos.draw(2, generator)
        taken, frames = photos.take(rows, generator), photos.frames_of(rows)
        assert taken.shape[0] == 2 and torch.equal(taken[:, 0, 0, 0], rows.float())
        assert frames is not None and torch.equal(frames[:, 0], rows.float())
        assert photos.weights_of(rows).shape == (2, 1, 1, taken.shape[-1])
        seen += rows.tolist()
    shares = torch.tensor(seen).bincount().float() / len(seen)
    # Standard error .022, since the two of a batch share their size.
    assert len(photos) == 4 and photos.has_weights and (shares - 0.25).abs().max() < 0.09
    assert float(photos.weights_of(torch.tensor([0])).mean()) == 1.0
    assert float(photos.weights_of(torch.tensor([2])).mean()) == 0.5
    assert [group.tolist() for group in photos.by_size(torch.tensor([0, 1, 0, 3]))] == [[0, 2], [1, 3]]


def test_photos_and_class_pictures_of_other_sizes_are_evaluated_apart() -> None:
    seen: list[tuple[torch.Tensor, Condition]] = []

    def denoise(x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> tuple:
        seen.append((x, condition))
        return x, torch.zeros_like(x)

    data = PhotosOfSizes([of_size(2, 1, 3), of_size(3, 1, 5)])
    pictures = ClassData(
        torch.full((2, 1, 1, 4), 7.0), frames=torch.zeros(2, 4), condition=Condition(torch.ones(1, 77, 3))
    )
    subject = Subject(
        LearnedToken(torch.ones(1, 3)), data, lambda index, vectors: Condition(vectors.expand(1, 77, 3)), pictures
    )
    task = Inversion(CustomDiffusionConfig(batch_size=2, prior_weight=0.5), [subject], 10, denoise)
    loss = task.loss(0, torch.Generator().manual_seed(1))
    (photos, told), (of_class, _) = seen
    assert photos.shape[-1] in (2, 3) and of_class.shape == (2, 1, 1, 4)
    assert told.frames is not None and torch.equal(told.frames[:, 0], photos[:, 0, 0, 0])
    number = float(photos.flatten()[0])
    assert float(loss.parts["reconstruction"]) == number**2 and float(loss.parts["prior"]) == 49.0
    assert float(loss.total.detach()) == number**2 + 0.5 * 49.0
    # How much has been learned is measured on every size: 8 pictures, four of either.
    assert task.steady_loss() == pytest.approx((3.0**2 + 5.0**2) / 2)
