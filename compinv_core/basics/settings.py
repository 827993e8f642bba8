"""Settings declared once: default, range, meaning and the paper's value beside the field that holds them.

A settings class is a frozen dataclass whose fields are made by `setting`, and whose ``__post_init__`` calls
`check_settings`. The node's inputs, the validation, the fingerprint of a run and the table of the help page follow from
the declaration.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import UserError, listed, quoted

_KEY = "setting"

Kind = Literal["whole number", "number", "choice", "text", "switch", "lines"]


@dataclass(frozen=True)
class Setting:
    """How one setting is declared.

    Parameters
    ----------
    name : str
        Of the input, as the person sees it.
    kind : Kind
        ``lines`` is a text whose lines, without empty ones, become a tuple.
    meaning : str
        The tooltip without range and paper's value.
    default : Any
        Of the input.
    low, high : float
        Both may be taken; ``above`` excludes `low`.
    choices : tuple of str, or callable returning one
    step, round : float
        Of the widget: how far a click goes, and how values are rounded.
    multiple : int
        Whole numbers have to be a multiple of it.
    paper : str
        The paper's value.
    group : str
        The part of the node that it belongs to.
    rare, optional, long, seed : bool
        Shown among the advanced inputs; need not be in a queued graph; a text of several lines; a seed.
    changes_result : bool
        False leaves it out of the fingerprint: it changes what is shown or how long is trained, never the bits of the
        first n steps.
    later : bool
        Came after runs were saved without it: at its default it is left out of the fingerprint, so that they go on.
    """

    name: str
    kind: Kind
    meaning: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] = ()
    step: float | None = None
    round: float | None = None
    multiple: int = 1
    paper: str = ""
    group: str = ""
    rare: bool = False
    optional: bool = False
    long: bool = False
    seed: bool = False
    changes_result: bool = True
    later: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """What a choice can be."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def tooltip(self) -> str:
        """Meaning, range and the paper's value."""
        parts = [f"{self.meaning.rstrip('.')}."]
        if self.kind in ("whole number", "number") and not self.seed:
            parts.append(f"{self.range[:1].upper()}{self.range[1:]}.")
        if self.paper:
            parts.append(f"The paper: {self.paper}.")
        return " ".join(parts)

    @property
    def range(self) -> str:
        """The numbers that are taken, in words."""
        multiple = f", a multiple of {self.multiple}" if self.multiple > 1 else ""
        if math.isinf(self.high):
            return ("above " if self.above else "at least ") + _short(self.low) + multiple
        if self.above:
            return f"above {_short(self.low)}, at most {_short(self.high)}" + multiple
        return f"{_short(self.low)} to {_short(self.high)}" + multiple

    def checked(self, value: Any) -> Any:
        """Return a value in the type of the setting; refuse, in a sentence, whatever else JSON can hold."""
        read = {
            "whole number": self._whole,
            "number": self._number,
            "choice": self._choice,
            "text": self._text,
            "switch": self._switch,
            "lines": self._lines,
        }[self.kind]
        return read(value)

    def _whole(self, value: Any) -> int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not self._in_range(value) or int(value) % self.multiple:
            raise self._refused(value, f"a whole number, {self.range}")
        return int(value)

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self._in_range(value):
            raise self._refused(value, f"a number, {self.range}")
        return float(value)

    def _in_range(self, value: float) -> bool:
        # Comparisons also turn NaN away, and infinity, which is no number that anything could be set to.
        return (value > self.low if self.above else value >= self.low) and value <= self.high and abs(value) < math.inf

    def _choice(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.options:
            raise self._refused(value, f"one of {listed(self.options)}")
        return value

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self._refused(value, "a text")
        return value

    def _switch(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refused(value, "true or false")
        return value

    def _lines(self, value: Any) -> tuple[str, ...]:
        lines = value.splitlines() if isinstance(value, str) else value
        if not isinstance(lines, (list, tuple)) or not all(isinstance(line, str) for line in lines):
            raise self._refused(value, "a text, one entry per line")
        return tuple(line.strip() for line in lines if line.strip())

    def _refused(self, value: Any, wanted: str) -> UserError:
        shown = quoted(value) if isinstance(value, str) else quoted(value)[1:-1]
        return UserError(f"{self.name} is {shown}; give {wanted}.")


def setting(default: Any, kind: Kind, meaning: str, *, name: str = "", **declaration: Any) -> Any:
    """Declare a field of a settings class.

    Parameters
    ----------
    default : Any
        Of the field; ``dataclasses.MISSING`` where it has to be given.
    kind, meaning
        See `Setting`.
    name : str
        Of the input, where it is not the field's.
    **declaration
        The rest of `Setting`; ``within`` is ``(low, high)``. ``shown`` is the input's default where it differs from the
        field's.
    """
    shown = declaration.pop("shown", default)
    if "within" in declaration:
        declaration["low"], declaration["high"] = declaration.pop("within")
    metadata = {_KEY: Setting(name, kind, meaning, shown, **declaration)}
    return dataclasses.field(default=default, metadata=metadata)


def changed(owner: type, name: str, default: Any, **declaration: Any) -> Any:
    """Declare a field of a settings class anew in one derived from it; `declaration` is what else differs."""
    (field,) = (field for field in dataclasses.fields(owner) if field.name == name)
    shown = declaration.pop("shown", default)
    metadata = {_KEY: dataclasses.replace(field.metadata[_KEY], default=shown, **declaration)}
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(kind: type, *groups: str) -> dict[str, Setting]:
    """Return the declarations of a settings class by the fields' names, group after group; all of them without any."""
    found = {
        field.name: dataclasses.replace(field.metadata[_KEY], name=field.metadata[_KEY].name or field.name)
        for field in dataclasses.fields(kind)
        if _KEY in field.metadata
    }
    if not groups:
        return found
    return {name: each for group in groups for name, each in found.items() if each.group == group}


def check_settings(settings: Any) -> None:
    """Refuse values out of their range or of another type; for ``__post_init__``.

    Raises
    ------
    UserError
        Naming the input.
    """
    for name, declared in settings_of(type(settings)).items():
        object.__setattr__(settings, name, declared.checked(getattr(settings, name)))


def read_settings(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a settings class among the values of a node's inputs, which go by the inputs' names."""
    return {field: values[declared.name] for field, declared in settings_of(kind).items() if declared.name in values}


def fingerprint(settings: Any, without: Iterable[str] = ()) -> dict[str, str]:
    """Return the settings that the result depends on, as text."""
    left_out = set(without)
    # Not the input's default: what runs had that were saved without it is the field's.
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {
        name: repr(getattr(settings, name))
        for name, declared in settings_of(type(settings)).items()
        if declared.changes_result
        and name not in left_out
        and not (declared.later and getattr(settings, name) == declared.checked(defaults[name]))
    }


def _short(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{int(number)}"
