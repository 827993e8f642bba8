"""What is kept of the attention of a sampling run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compinv_core.basics.errors import UserError
from compinv_core.recording.record import (
    MEMORY_LIMIT,
    AttentionAccumulator,
    AttentionFrame,
    AttentionRecord,
    AttentionRecording,
    merge_maps,
)
from compinv_core.spatial.attention import BlockAttention, BlockMaps, reduce_block


def constant(value: float, height: int, width: int, blocks: int = 1) -> BlockMaps:
    return BlockMaps(torch.full((1, 1, height, width), value), blocks)


def record(frames: int = 1, cells: int = 4) -> AttentionRecord:
    maps = (BlockMaps(torch.rand(1, 2, cells, cells)),)
    return AttentionRecord(
        "a cat and a ball",
        ("a cat", "a ball"),
        (None, None),
        tuple(AttentionFrame(step, 1.0, maps) for step in range(frames)),
        frames,
        8,
        8,
    )


def test_a_block_is_reduced_to_the_mean_of_heads_and_tokens() -> None:
    weights = torch.zeros(1, 2, 2, 77)
    weights[0, 0, :, 1] = torch.tensor([0.2, 0.4])
    weights[0, 1, :, 2] = torch.tensor([0.6, 0.0])
    reduced = reduce_block(BlockAttention(weights, 1, 2), [(1, 2), (2,)])
    torch.testing.assert_close(reduced.values, torch.tensor([[[[0.2, 0.1]], [[0.3, 0.0]]]]))
    assert reduced.blocks == 1


def test_blocks_of_one_resolution_are_averaged_by_their_number() -> None:
    coarse, fine = merge_maps([constant(1.0, 1, 2), constant(5.0, 2, 4), constant(4.0, 1, 2, blocks=2)])[::-1]
    assert fine.values.tolist() == [[[[5.0] * 4] * 2]] and fine.blocks == 1
    assert coarse.values.tolist() == [[[[3.0, 3.0]]]] and coarse.blocks == 3


def test_numbers_are_averaged_by_blocks_whatever_the_resolution_becomes() -> None:
    def numbered(size: int, logit: float, mass: float, blocks: int) -> BlockMaps:
        return BlockMaps(torch.ones(1, 1, size, size), blocks, torch.tensor([[logit]]), torch.tensor([[mass]]))

    (merged,) = merge_maps([numbered(4, -1.0, 0.25, 1), numbered(2, 3.0, 0.5, 3)], limit=16)
    assert merged.values.shape == (1, 1, 2, 2) and merged.blocks == 4
    assert merged.logit is not None and merged.logit.tolist() == [[2.0]]
    assert merged.mass is not None and merged.mass.tolist() == [[0.4375]]
    (without,) = merge_maps([numbered(2, -1.0, 0.25, 1), constant(1.0, 2, 2)])
    assert without.logit is None and without.mass is None


def test_maps_too_fine_for_the_limit_are_averaged_over_two_by_two_cells() -> None:
    fine = BlockMaps(torch.arange(8.0).view(1, 1, 2, 4))
    assert merge_maps([fine], limit=32)[0].values.tolist() == fine.values.tolist()
    (halved,) = merge_maps([fine], limit=31)
    assert halved.values.tolist() == [[[[2.5, 4.5]]]]
    # Brought to the resolution of the other map, the two are averaged.
    (merged,) = merge_maps([fine, constant(0.5, 1, 2)], limit=31)
    assert merged.values.tolist() == [[[[1.5, 2.5]]]] and merged.blocks == 2
    assert merge_maps([fine], limit=0)[0].values.tolist() == [[[[3.5]]]]


@pytest.mark.parametrize("images", [1, 16])
def test_fifty_steps_at_512_stay_within_the_limit(images: int) -> None:
    """All decoder blocks of Stable Diffusion 1 for eight phrases, before and after guidance."""
    blocks = [BlockMaps(torch.rand(images, 8, size, size), 3) for size in (64, 32, 16)]
    accumulator = AttentionAccumulator(50)
    accumulator.add(0, 14.6, blocks, blocks)
    (frame,) = accumulator.frames()
    size = 50 * sum(4 * maps.values.numel() for maps in (*frame.maps, *frame.unguided))
    assert size <= MEMORY_LIMIT == 64 * 2**20
    assert frame.maps[0].values.shape[-2:] == ((64, 64) if images == 1 else (32, 32))
    mass = [each.values.mean((-2, -1)) * each.blocks for each in frame.maps]
    expected = sum(each.values.mean((-2, -1)) * each.blocks for each in blocks)
    torch.testing.assert_close(sum(mass), expected)


def test_frames_come_in_the_order_of_the_steps_and_unused_ones_are_missing() -> None:
    accumulator = AttentionAccumulator(3)
    accumulator.add(2, 1.0, [constant(1.0, 2, 2)])
    accumulator.add(1, 2.0, [])
    accumulator.add(0, 3.0, [constant(1.0, 2, 2)], [constant(0.5, 2, 2)])
    frames = accumulator.frames()
    assert [(frame.step, frame.unguided is None) for frame in frames] == [(0, False), (2, True)]


def test_a_run_is_found_by_its_result() -> None:
    recording = AttentionRecording("a cat and a ball", ("a cat", "a ball"))
    results = [torch.full((1, 4, 2, 2), value) for value in (1.0, 2.0)]
    first, second = record(), record()
    recording.keep(results[0], first)
    recording.keep(results[1], second)
    assert recording.record_of(results[0].clone()) is first
    assert recording.record_of(results[1].half()) is second
    for other in (results[0] + 1e-4, results[0].repeat(2, 1, 1, 1)):
        with pytest.raises(UserError, match=r"no recorded sampling .*; connect the model of Record Attention"):
            recording.record_of(other)


def test_a_run_with_the_same_result_takes_the_place_of_the_old_one() -> None:
    recording = AttentionRecording("a cat and a ball", ("a cat", "a ball"))
    result = torch.tensor([[[[1.0, torch.nan]]]])
    recording.keep(result, record())
    again = record()
    recording.keep(result, again)
    assert recording.record_of(result) is again
    assert len(recording._runs) == 1


def test_the_oldest_runs_go_when_memory_is_short() -> None:
    maps, result = 4 * 2 * 16, 4 * 4 * 2 * 2
    recording = AttentionRecording("a cat and a ball", ("a cat", "a ball"), limit=2 * (maps + result))
    results = [torch.full((1, 4, 2, 2), float(value)) for value in range(3)]
    for result in results:
        recording.keep(result, record())
    assert recording.size_in_bytes == recording.limit
    with pytest.raises(UserError):
        recording.record_of(results[0])
    assert recording.record_of(results[1]) is not recording.record_of(results[2])


@pytest.mark.parametrize("images", [1, 4])
def test_three_guided_runs_of_fifty_steps_at_512_never_pass_the_limit(images: int) -> None:
    """Eight phrases in all decoder blocks of Stable Diffusion 1; a run grows while older ones are still held."""
    recording = AttentionRecording("a prompt", tuple("abcdefgh"))
    blocks = [BlockMaps(torch.rand(images, 8, size, size), 3) for size in (64, 32, 16)]
    empty = record(0)
    held = []
    for run in range(3):
        samples = torch.full((images, 4, 64, 64), float(run))
        accumulator = recording.accumulator(50, samples)
        for step in range(50):
            accumulator.add(step, 1.0, blocks, blocks)
            growing = replace(empty, frames=accumulator.frames())
            held.append(bytes_held([*recording._runs, (samples, growing)]))
        recording.keep(samples, growing)
        held.append(bytes_held(recording._runs))
        assert recording.size_in_bytes == held[-1]
        assert recording.record_of(samples) is growing
    assert MEMORY_LIMIT / 2 < max(held) <= MEMORY_LIMIT


def bytes_held(runs: list) -> int:
    tensors = [samples for samples, _ in runs]
    for _, kept in runs:
        tensors += [maps.values for frame in kept.frames for maps in (*frame.maps, *frame.unguided)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_a_kept_result_does_not_change_with_the_latents() -> None:
    recording = AttentionRecording("a cat and a ball", ("a cat", "a ball"))
    result = torch.zeros(1, 4, 2, 2)
    recording.keep(result, record())
    result += 1
    assert recording.record_of(torch.zeros(1, 4, 2, 2)).images == 1


def test_a_prompt_that_was_never_in_use_is_said() -> None:
    recording = AttentionRecording("a cat and a ball", ("a cat", "a ball"))
    result = torch.zeros(1, 4, 2, 2)
    recording.keep(result, record(frames=0))
    with pytest.raises(UserError, match="was not in use at any step"):
        recording.record_of(result)
