"""Blocks of the frontier and of the comparison: a word of its own for each variant, the same pictures for all."""

from __future__ import annotations

import inspect

import pytest

from bench import comparison, frontier
from bench.reproduce.protocol import METHODS, PLAIN
from bench.variants import TIERS, Variant, blocks, table
from compinv_core.learning.settings import InversionConfig
from compinv_core.learning.tuning_settings import CustomDiffusionConfig, DreamBoothConfig
from miniworld.laboratory.workbench import Workbench

THINGS = [("my-cup", "cup"), ("my-fish", "fish"), ("my-house", "house")]
NOUNS = ("cup", "fish", "house", "boat", "moon", "tree")
COMMANDS = {f"frontier of {method}": (method, frontier.variants(method)) for method in METHODS}
COMMANDS["comparison"] = (METHODS[0], comparison.variants())
CONFIGURATIONS = dict(zip(METHODS, (InversionConfig, DreamBoothConfig, CustomDiffusionConfig), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_variant_has_settings_that_a_training_takes_and_words_of_its_own(command: str) -> None:
    method, variants = COMMANDS[command]
    for variant in variants.values():
        CONFIGURATIONS[method](**variant.settings)
        assert set(variant.repair) <= set(inspect.signature(Workbench.adjust).parameters)
    found = list(blocks(TIERS["lite"], [method], THINGS, NOUNS, variants))
    assert len(found) == TIERS["lite"].things * len(variants)
    assert len({block.key for block in found}) == len(found)
    assert len({(block.method, block.word(block.things[0])) for block in found}) == len(found)
    assert all(dict(THINGS)[block.things[0]] not in block.nouns for block in found)
    # Names of words are names of files.
    assert all(set(block.word("my-cup")) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for block in found)


def test_what_is_repaired_is_the_plain_word() -> None:
    found = list(blocks(TIERS["smoke"], METHODS[:1], THINGS, NOUNS, comparison.variants()))
    (plain,) = (block for block in found if block.variant == PLAIN)
    repaired = [block for block in found if block.repair]
    assert {block.variant for block in repaired} == {"adjust 0.4", "TEA 0.2", "TEA 0.5"}
    assert {block.unrepaired.word("my-cup") for block in repaired} == {plain.word("my-cup")}
    assert plain.unrepaired == plain and not plain.semantic


def test_all_cures_have_the_same_things_seeds_nouns_and_pictures() -> None:
    found = list(blocks(TIERS["full"], METHODS[:1], THINGS, NOUNS, comparison.variants()))

    def frame(variant: str) -> list[tuple]:
        return [(b.things, b.seed, b.nouns, b.pictures, b.training) for b in found if b.variant == variant]

    assert all(frame(variant) == frame(PLAIN) for variant in comparison.variants()) and len(frame(PLAIN)) == 9


def test_the_table_has_a_line_for_each_variant_without_guidance() -> None:
    common = {"method": METHODS[0], "thing": "my-cup", "seed": 10}
    rows = [
        {**common, "variant": PLAIN, "spatial": spatial, "all_there": 1 - spatial, "object_alignment": 0.5}
        for spatial in (0, 1)
    ]
    variants = {PLAIN: Variant(), "other": Variant()}
    lines = table(rows, METHODS[0], variants, ("all_there", "duplicates")).splitlines()
    assert lines[0] == "| variant | n | all there | duplicates |"
    assert lines[2:] == ["| plain | 1 | 1.00 | – |", "| other | 0 | – | – |"]
