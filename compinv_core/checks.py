"""Checks of single settings, with a sentence that names the input."""

from __future__ import annotations

from .errors import UserError


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Parameters
    ----------
    name : str
        The input to be named in the sentence.
    value : str
    choices : tuple of str

    Raises
    ------
    UserError
    """
    if value not in choices:
        raise UserError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def check_range(name: str, value: float, low: float, high: float | None = None) -> None:
    """Refuse a number below `low` or above `high`, and NaN.

    Parameters
    ----------
    name : str
        The input to be named in the sentence.
    value : float
    low : float
    high : float, optional
        None for no upper bound.

    Raises
    ------
    UserError
    """
    if not (value >= low and (high is None or value <= high)):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UserError(f"{name} is {value}; give a number {wanted}.")


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not above 0.

    Parameters
    ----------
    name : str
        The input to be named in the sentence.
    value : float

    Raises
    ------
    UserError
    """
    if not value > 0:
        raise UserError(f"{name} is {value}; give a number above 0.")
