"""Pictures of recorded attention: what is bright, where boxes are, and which rows there are."""

from __future__ import annotations

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.basics.line_chart import HEIGHT, WIDTH, Line, draw_chart, fit_text, font, ticks
from compinv_core.recording.measures import attention_curves
from compinv_core.recording.plots import draw_curves, draw_heatmaps, heatmap_rows
from compinv_core.recording.record import AttentionFrame, AttentionRecord
from compinv_core.spatial.attention import BlockMaps

LEFT = (0.0, 0.0, 0.5, 1.0)
BAND, GAP = 26, 6  # of the sheet, in pixels


def peaks(rows: int, columns: int, *places: tuple[int, int]) -> tuple[BlockMaps, ...]:
    """Two images; phrase p looks at places[p] only."""
    values = torch.zeros(2, len(places), rows, columns)
    for phrase, (row, column) in enumerate(places):
        values[:, phrase, row, column] = 1.0
    return (BlockMaps(values),)


def record(phrases: tuple[str, ...] = ("a cat", "a ball")) -> AttentionRecord:
    places = ((0, 0), (3, 7))[: len(phrases)]
    frames = (
        AttentionFrame(0, 9.0, peaks(4, 8, *places), peaks(4, 8, *places[::-1])),
        AttentionFrame(1, 3.0, peaks(4, 8, *places)),
        AttentionFrame(3, 1.0, peaks(4, 8, *places)),
    )
    return AttentionRecord("a cat and a ball", phrases, (None,) * len(phrases), frames, 5, 4, 8)


def panel(sheet: torch.Tensor, row: int, column: int, height: int = 128, width: int = 256) -> torch.Tensor:
    """The heatmap at a place of the sheet, (height, width, 3)."""
    top = row * (height + 2 * BAND + GAP) + 2 * BAND
    left = GAP + column * (width + GAP)
    return sheet[top : top + height, left : left + width]


def test_rows_before_and_after_guidance() -> None:
    whole = record()
    assert [row.title for row in heatmap_rows(whole)] == [
        "mean of steps 0 to 1, 3",
        "before guidance, step 0",
        "after guidance, step 0",
    ]
    assert [row.title for row in heatmap_rows(whole, 0)] == ["before guidance, step 0", "after guidance, step 0"]
    assert [row.title for row in heatmap_rows(whole, 3)] == ["step 3"]
    before, after = heatmap_rows(whole, 0)
    assert before.maps[0, 0].argmax() == 31 and after.maps[0, 0].argmax() == 0


def test_bright_is_much_attention() -> None:
    whole = record()
    sheets = draw_heatmaps(whole, whole.boxes, 0)
    assert sheets.shape == (2, 2 * (128 + 2 * BAND + GAP), 2 * (256 + GAP) + GAP, 3)
    assert sheets.dtype == torch.float32 and sheets.min() >= 0 and sheets.max() <= 1
    for row, column, bright, dark in ((1, 0, (0, 0), (-1, -1)), (1, 1, (-1, -1), (0, 0)), (0, 0, (-1, -1), (0, 0))):
        heatmap = panel(sheets[0], row, column).mean(-1)
        assert heatmap[bright] > 0.8 and heatmap[dark] < 0.05


def test_a_column_has_one_scale() -> None:
    """The weaker of two rows stays darker."""
    weak = (BlockMaps(peaks(4, 8, (0, 0), (3, 7))[0].values * 0.5),)
    frame = AttentionFrame(0, 9.0, peaks(4, 8, (0, 0), (3, 7)), weak)
    whole = AttentionRecord("", ("a cat", "a ball"), (None, None), (frame,), 1, 4, 8)
    sheet = draw_heatmaps(whole, whole.boxes, 0)[0]
    assert panel(sheet, 0, 0)[0, 0].mean() < panel(sheet, 1, 0)[0, 0].mean() - 0.2


def test_the_picture_lies_under_the_maps_and_boxes_on_them() -> None:
    whole = record(("a cat",))
    image = torch.zeros(2, 64, 128, 3)
    image[1] = 1.0
    dark, light = draw_heatmaps(whole, (LEFT,), 3, image)
    middle = (64, 192)
    torch.testing.assert_close(panel(light, 0, 0)[middle], panel(dark, 0, 0)[middle] + 0.4, rtol=0, atol=0.01)
    assert (panel(dark, 0, 0)[64, 127] == 1.0).all()
    assert (panel(dark, 0, 0)[64, 135] < 1.0).all()


def test_other_pictures_than_were_sampled_are_refused() -> None:
    whole = record()
    with pytest.raises(UserError, match=r"`image` has 3 pictures, but 2 were sampled; connect the decoded picture"):
        draw_heatmaps(whole, whole.boxes, -1, torch.zeros(3, 64, 128, 3))


def test_maps_that_are_not_finite_are_drawn_dark() -> None:
    maps = (BlockMaps(torch.full((1, 1, 4, 4), torch.nan)),)
    whole = AttentionRecord("", ("a cat",), (LEFT,), (AttentionFrame(0, 9.0, maps),), 1, 4, 4)
    assert panel(draw_heatmaps(whole, (None,))[0], 0, 0, 256).max() < 0.05
    assert draw_curves(whole, attention_curves(whole, (LEFT,))).isfinite().all()


def test_curves_have_a_second_chart_where_there_are_boxes() -> None:
    whole = record()
    assert draw_curves(whole, attention_curves(whole, (None, None))).shape == (1, HEIGHT, WIDTH, 3)
    assert draw_curves(whole, attention_curves(whole, (LEFT, None))).shape == (1, 2 * HEIGHT, WIDTH, 3)


def test_numbers_of_the_phrases_have_charts_of_their_own() -> None:
    def with_numbers(logit: list[float]) -> AttentionRecord:
        (maps,) = peaks(4, 8, (0, 0), (3, 7))
        numbered = BlockMaps(maps.values, 1, torch.tensor([logit, logit]), torch.tensor([[0.02, 0.01]] * 2))
        frames = tuple(AttentionFrame(step, 1.0, (numbered,)) for step in range(3))
        return AttentionRecord("a cat and a ball", ("a cat", "a ball"), (None, None), frames, 3, 4, 8)

    one, other = (draw_curves(each, attention_curves(each, each.boxes)) for each in map(with_numbers, ([2.0, -1.0],
                  [2.0, -2.0])))  # fmt: skip
    assert one.shape == other.shape == (1, 3 * HEIGHT, WIDTH, 3)
    assert not torch.equal(one[:, :HEIGHT], other[:, :HEIGHT]) and torch.equal(one[:, HEIGHT:], other[:, HEIGHT:])
    # The attention's axis begins at zero: half as much is half as high.
    chart = one[0, HEIGHT : 2 * HEIGHT, 64 : WIDTH - 300]
    colours = [torch.tensor(rgb) / 255 for rgb in ((0, 114, 178), (213, 94, 0))]
    rows = [((chart - colour).abs().sum(-1) < 0.01).nonzero()[:, 0].float().mean() for colour in colours]
    bottom = HEIGHT - 48
    assert float((bottom - rows[0]) / (bottom - rows[1])) == pytest.approx(2.0, rel=0.02)


def test_one_phrase_gets_a_note_instead_of_a_curve() -> None:
    single = record(("a cat",))
    plot = draw_curves(single, attention_curves(single, (None,)))
    ground = draw_curves(record(), attention_curves(record(), (None, None)))
    middle = (slice(180, 210), slice(250, 500))
    assert (plot[0][middle] < 0.4).any() and not (ground[0][middle] < 0.4).any()


def test_a_line_goes_through_its_points_and_stops_at_nan() -> None:
    colour = "#ff0000"
    chart = draw_chart("", "step", [Line("", (0, 1, 2, 3), (0.0, 1.0, float("nan"), 0.5), colour)], (0, 3), (0, 1))
    pixels = torch.frombuffer(bytearray(chart.tobytes()), dtype=torch.uint8).view(HEIGHT, WIDTH, 3).float()
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 50)
    left, right, top, bottom = 64, WIDTH - 300, 44, HEIGHT - 48
    third = (right - left) // 3
    assert red[bottom - 2 : bottom + 2, left - 2 : left + 3].any()
    assert red[top - 2 : top + 3, left + third - 2 : left + third + 3].any()
    assert red[(top + bottom) // 2, left + third // 2 - 4 : left + third // 2 + 5].any()
    assert not red[top:bottom, left + third + 8 : right - 8].any()
    assert red[(top + bottom) // 2 - 2 : (top + bottom) // 2 + 3, right - 3 : right + 3].any()


def test_ticks_are_round() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.913, 0.962) == pytest.approx([0.92, 0.93, 0.94, 0.95, 0.96])
    assert ticks(0.0, 3.0, whole=True) == [0.0, 1.0, 2.0, 3.0]
    assert ticks(0.0, 49.0, whole=True) == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_a_long_phrase_is_shortened() -> None:
    text = "a very long phrase that does not fit " * 3
    short = fit_text(text, 14, 120)
    assert short.endswith("…") and font(14).getlength(short) <= 120
    assert fit_text("a cat", 14, 120) == "a cat"
