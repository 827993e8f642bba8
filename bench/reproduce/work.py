"""One block of work: learn, paint with and without layout guidance, keep the pictures, measure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from compinv_core.basics.atomic_file import replacing
from compinv_core.measures.attention import attention_shares, dominance
from miniworld.laboratory.contact_sheet import pixels
from miniworld.laboratory.things import Word

from .protocol import PROMPT, TEXTUAL_INVERSION, Block
from .store import Row
from .worlds import Place, World

_DIGITS = 4
_worlds: dict[Place, World] = {}


def carry_out(block: Block, place: Place, say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Do a block in this process; the world is opened once. One thread, so that every worker gives the same bits."""
    torch.set_num_threads(1)
    world = _opened(place)
    say(f"{block.key}: learning")
    with torch.random.fork_rng(devices=[]):
        model, phrases = learned(world, block)
        rows = []
        for spatial in (False, True) if block.guided else (False,):
            say(f"{block.key}: painting, {'with' if spatial else 'without'} guidance")
            for other, order, prompt in block.prompts(phrases):
                rows += _painted(world, block, Path(place.folder), model, phrases, other, order, prompt, spatial)
    seconds = world.bench.seconds.get(block.word(block.things[0]))
    if block.variant and seconds is not None:
        rows[0]["training_seconds"] = round(seconds, 1)
    return rows


def learn_ahead(blocks: Sequence[Block], place: Place, say: Callable[[str], None]) -> None:
    """On a graphics card learn the words of textual inversion of all blocks in one batch; else a block learns its own.

    Killed in the middle, the batch begins anew.
    """
    asking = [block for block in blocks if block.method == TEXTUAL_INVERSION]
    if not asking or not (world := _opened(place)).bench.on_card:
        return
    say(f"learning the words of {len(asking)} blocks together")
    with torch.random.fork_rng(devices=[]):
        world.bench.learn_all(
            [
                Word(world.things[name], block.unrepaired.word(name), block.masked, True, _settings(world, block))
                for block in asking
                for name in block.things
            ]
        )


def learned(world: World, block: Block) -> tuple[Any, tuple[str, ...]]:
    """Learn what is missing; return the model (None for the one as it is) and the phrase of each own thing."""
    things = [world.things[name] for name in block.things]
    settings, bench, masked = _settings(world, block), world.bench, block.masked
    if block.method == TEXTUAL_INVERSION:
        first = block.unrepaired
        words = tuple(bench.learn(thing, first.word(thing.name), masked, True, **settings) for thing in things)
        if block.repair:
            words = tuple(
                bench.adjust(thing, first.word(thing.name), block.word(thing.name), **dict(block.repair))
                for thing in things
            )
        return None, words
    # Differences of keys and values add up; whole networks do not, so DreamBooth learns two things together.
    together = [things] if block.method == "DreamBooth" else [[thing] for thing in things]
    model, phrases = None, ()
    for group in together:
        name = block.word("+".join(thing.name for thing in group))
        more = {"batch_size": len(group)} if len(group) > 1 else {}
        model, words = bench.tune(block.method, group, name, masked, onto=model, **settings | more)
        phrases += tuple(f"{word} {thing.noun}" for word, thing in zip(words, group, strict=True))
    return model, phrases


def _opened(place: Place) -> World:
    return _worlds.get(place) or _worlds.setdefault(place, place.open())


def _settings(world: World, block: Block) -> dict[str, Any]:
    """Settings of a block's training."""
    settings = {**world.training[block.method], **dict(block.settings), "seed": block.seed}
    settings["steps"] = max(2, round(settings["steps"] * block.training))
    return settings if block.semantic else settings | {"anchor_weight": 0.0}


def _painted(
    world: World,
    block: Block,
    folder: Path,
    model: Any,
    phrases: Sequence[str],
    other: str,
    order: int,
    prompt: str,
    spatial: bool,
) -> list[Row]:
    own, partner = world.things[block.things[0]], world.things.get(other)
    both = (phrases[0], phrases[1] if partner else other)
    in_order = both if order == 0 else both[::-1]
    # The same pictures for every cell of a prompt, whatever was done before.
    seed = zlib.crc32(f"{block.things} {other} {order} {block.seed}".encode()) % 2**31
    guided: dict[str, Any] = {}
    if spatial:
        guided = {"phrases": in_order, "boxes": world.boxes(in_order), "guidance": world.guidance}
    pictures = world.bench.paint(prompt, seed, block.pictures, model=model, **guided)
    noun = partner.noun if partner else other
    measured = world.measure(
        pictures, own, noun, PROMPT.format(*((own.noun, noun) if order == 0 else (noun, own.noun)))
    )
    if not spatial:
        shares = attention_shares(world.bench.recorded(prompt, both, seed, model=model))
        measured[0]["attention_share"] = float(shares[0, 0] / shares[0].sum())
        measured[0]["attention_ratio"] = float(dominance(shares, 0, 1)[0])
    key: Row = {
        "method": block.method, "semantic": int(block.semantic), "spatial": int(spatial), "masked": int(block.masked),
        "half": block.half, "thing": own.name, "other": other, "order": order, "seed": block.seed,
    }  # fmt: skip
    if block.variant:
        key["variant"] = block.variant
    rows = []
    for number, (picture, row) in enumerate(zip(pictures, measured, strict=True)):
        _keep(
            picture,
            folder / "pictures" / block.key / f"{'guided' if spatial else 'plain'}_{other}_{order}_{number}.png",
        )
        numbers = {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in row.items()}
        rows.append({**key, "picture": number, **numbers})
    return rows


def _keep(picture: Tensor, file: Path) -> None:
    with replacing(file) as temporary:
        Image.fromarray(pixels(picture.movedim(0, -1))).save(temporary, "PNG")
