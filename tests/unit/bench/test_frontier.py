"""The frontier's blocks: every variant learns a word of its own, on things that are for choosing."""

from __future__ import annotations

from bench.frontier import PLAIN, TIERS, blocks, table, variants
from bench.reproduce.protocol import METHODS
from compinv_core.learning.settings import InversionConfig

THINGS = [("my-cup", "cup"), ("my-fish", "fish"), ("my-house", "house")]
NOUNS = ("cup", "fish", "house", "boat", "moon", "tree")


def test_every_variant_has_settings_that_a_training_takes_and_words_of_its_own() -> None:
    for settings in variants().values():
        InversionConfig(**settings)
    found = list(blocks(TIERS["lite"], METHODS, THINGS, NOUNS))
    assert len(found) == 3 * len(METHODS) * len(variants())
    assert len({block.key for block in found}) == len(found)
    assert len({(block.method, block.word(block.things[0])) for block in found}) == len(found)
    assert all(dict(THINGS)[block.things[0]] not in block.nouns for block in found)
    # Names of words are names of files.
    assert all(set(block.word("my-cup")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for block in found)


def test_the_table_has_a_line_for_each_variant_without_guidance() -> None:
    common = {"method": METHODS[0], "thing": "my-cup", "seed": 10}
    rows = [
        {**common, "variant": PLAIN, "spatial": spatial, "all_there": 1 - spatial, "object_alignment": 0.5}
        for spatial in (0, 1)
    ]
    lines = table(rows, METHODS[0]).splitlines()
    assert len(lines) == 2 + len(variants())
    assert lines[2].startswith("| plain | 1 | 1.00") and lines[3].startswith("| anchor loss 0.03 | 0 | – |")
