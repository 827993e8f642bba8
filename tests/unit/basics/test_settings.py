"""Settings declared once: what is taken, what is refused in which words, and what follows from the declaration."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from compinv_core.basics.errors import UserError
from compinv_core.basics.settings import changed, check_settings, fingerprint, read_settings, setting, settings_of


@dataclass(frozen=True)
class Kettle:
    """Settings of a kettle."""

    cups: int = setting(2, "whole number", "Cups of water", low=1, high=8, paper="4", group="water")
    heat: float = setting(0.5, "number", "Share of the power.", low=0, high=1, above=True, group="power")
    side: int = setting(64, "whole number", "Side of the base in pixels", low=64, multiple=8, group="power")
    tea: str = setting("green", "choice", "Kind of tea", choices=("green", "black"), group="water")
    label: str = setting("", "text", "Written on the cup", changes_result=False, group="water")
    loud: bool = setting(False, "switch", "Whistles", rare=True, group="power")
    steps: tuple[str, ...] = setting((), "lines", "What to do", name="custom_steps", shown="", group="water")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Samovar(Kettle):
    """A larger kettle."""

    cups: int = changed(Kettle, "cups", 6, paper="12")


# What JSON can hold, and a little more.
ODD = [None, True, "x", "", [], [1], {}, {"a": 1}, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**400, "\ud800\n"]


@pytest.mark.parametrize("name", settings_of(Kettle))
@pytest.mark.parametrize("value", ODD, ids=[str(i) for i in range(len(ODD))])
def test_any_value_is_taken_or_refused_in_a_sentence_that_names_the_input(name: str, value: object) -> None:
    shown = settings_of(Kettle)[name].name
    sentence = f"{shown} is ; give "
    try:
        Kettle(**{name: value})
    except UserError as error:
        sentence = str(error)
    assert sentence.startswith(f"{shown} is ")
    assert "; give " in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("cups", 0, "cups is 0; give a whole number, 1 to 8."),
        ("cups", 9, "cups is 9; give a whole number, 1 to 8."),
        ("cups", 2.5, "cups is 2.5; give a whole number, 1 to 8."),
        ("cups", True, "cups is True; give a whole number, 1 to 8."),
        ("cups", "two", 'cups is "two"; give a whole number, 1 to 8.'),
        ("heat", 0, "heat is 0; give a number, above 0, at most 1."),
        ("heat", float("nan"), "heat is nan; give a number, above 0, at most 1."),
        ("side", 68, "side is 68; give a whole number, at least 64, a multiple of 8."),
        ("tea", "white", 'tea is "white"; give one of green, black.'),
        ("tea", ["green"], "tea is ['green']; give one of green, black."),
        ("loud", 1, "loud is 1; give true or false."),
        ("label", 3, "label is 3; give a text."),
        ("steps", [1], "custom_steps is [1]; give a text, one entry per line."),
    ],
)
def test_refusals(name: str, value: object, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        Kettle(**{name: value})
    assert str(refused.value) == sentence


def test_values_come_out_in_the_type_of_the_setting() -> None:
    kettle = Kettle(cups=3.0, heat=1, steps=" boil \n\n pour ")
    assert (kettle.cups, type(kettle.cups)) == (3, int)
    assert (kettle.heat, type(kettle.heat)) == (1.0, float)
    assert kettle.steps == ("boil", "pour")


def test_the_tooltip_has_meaning_range_and_the_papers_value() -> None:
    declared = settings_of(Kettle)
    assert declared["cups"].tooltip == "Cups of water. 1 to 8. The paper: 4."
    assert declared["heat"].tooltip == "Share of the power. Above 0, at most 1."
    assert declared["tea"].tooltip == "Kind of tea."


def test_a_derived_class_changes_the_default_and_keeps_the_rest() -> None:
    assert Samovar().cups == 6
    assert settings_of(Samovar)["cups"].default == 6
    assert settings_of(Samovar)["cups"].tooltip == "Cups of water. 1 to 8. The paper: 12."
    assert settings_of(Samovar)["cups"].high == 8


def test_groups_are_listed_in_the_order_asked_for() -> None:
    assert list(settings_of(Kettle, "power", "water")) == ["heat", "side", "loud", "cups", "tea", "label", "steps"]


def test_the_fingerprint_holds_what_changes_the_result_and_is_json() -> None:
    prints = fingerprint(Kettle(label="x"), without=["loud"])
    assert prints == {"cups": "2", "heat": "0.5", "side": "64", "tea": "'green'", "steps": "()"}
    assert json.loads(json.dumps(prints)) == prints


def test_fields_are_read_by_the_inputs_names() -> None:
    values = {"cups": 3, "custom_steps": "boil", "model": object()}
    assert Kettle(**read_settings(Kettle, values)) == Kettle(cups=3, steps=("boil",))
