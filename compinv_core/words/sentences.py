"""Sentences that stand around the learned word during training.

``{}`` is the place of the learned word, ``{class}`` that of the ordinary noun for the concept.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..basics.errors import UserError, quoted
from .nouns import same_noun
from .phrases import spoken

OBJECT_TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "one {} in the picture",
    "a snapshot showing {}",
    "{} seen up close",
    "{} seen from the side",
    "a sharp photo of {}",
    "a blurry photo of {}",
    "a dim photo of {}",
    "a sunlit photo of {}",
    "a small picture of {}",
    "a cropped picture of {}",
    "a tidy photo of {}",
    "a photo with {} in the middle",
    "an everyday photo of {}",
    "here is {}",
)

STYLE_TEMPLATES = (
    "a picture in the style of {}",
    "a painting in the manner of {}",
    "artwork by {}",
    "a drawing that looks like {}",
    "a landscape in the style of {}",
    "a portrait in the style of {}",
    "a still life in the style of {}",
    "a sketch in the manner of {}",
    "a dark picture in the style of {}",
    "a bright picture in the style of {}",
    "a detail in the style of {}",
    "a large canvas in the style of {}",
    "a print in the style of {}",
    "a study in the manner of {}",
)

TEMPLATES = {
    "object": OBJECT_TEMPLATES,
    "style": STYLE_TEMPLATES,
    "object with class": tuple(template.replace("{}", "{} {class}") for template in OBJECT_TEMPLATES),
}


# Between a word and its class noun a few others may stand, as in "my-cat sleeping cat".
_NEAR = 4


def with_class(template: str, superclass: str) -> str:
    """Return the template with the concept's noun in the place of ``{class}``, if it has one."""
    return template.replace("{class}", superclass)


def beside_nouns(templates: Iterable[str], nouns: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return sentences of the learned word beside nouns, and the same with its class noun alone in its place.

    The word stands before its class noun where a template has it there.
    """
    phrase = "{} {class}" if any("{} {class}" in template for template in templates) else "{}"
    return tuple((f"a {phrase} and a {noun}", f"a {{class}} and a {noun}") for noun in nouns)


def other_wording(prompt: str, name: str, superclass: str, sentences: Iterable[str]) -> str:
    """Say how a prompt should have a learned word, where it was trained otherwise; empty where both agree.

    Parameters
    ----------
    name : str
        What stands behind ``embedding:``.
    superclass : str
        Its class noun.
    sentences : iterable of str
        That it was trained in.
    """
    words, own, noun = spoken(prompt).split(), spoken(name), spoken(superclass)
    before_noun = [f"{{}} {superclass}" in with_class(sentence, superclass) for sentence in sentences]
    behind = [words[index + 1 : index + 1 + _NEAR] for index, word in enumerate(words) if word == own]
    length = len(noun.split())
    if not behind or not noun or not before_noun:
        return ""
    if any(before_noun):
        starts = range(_NEAR)
        if all(any(same_noun(noun, " ".join(near[i : i + length])) for i in starts) for near in behind):
            return ""
        return f'was trained before its class noun; write "embedding:{name} {superclass}" wherever it stands'
    if not any(near[:length] == noun.split() for near in behind):
        return ""
    return (
        f'was trained alone and says little before "{superclass}"; write "embedding:{name}" without it, or train it '
        "with the template object with class"
    )


def split_template(template: str, input_name: str = "custom_templates") -> tuple[str, str]:
    """Return the text before and after the place ``{}`` of the learned word.

    Raises
    ------
    UserError
        Naming the input, unless there is exactly one.
    """
    before, place, after = template.partition("{}")
    if not place or "{}" in after:
        raise UserError(
            f"{input_name}: {quoted(template)} must hold the place {{}} of the learned word exactly once; write it "
            "as in 'a photo of {}'."
        )
    return before.strip(), after.strip()
