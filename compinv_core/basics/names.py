"""Names that people give: safe as file names everywhere, and readable inside a prompt."""

from __future__ import annotations

import re

from .errors import UserError, quoted

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 64
# Windows keeps these for devices, with any ending.
_RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(10)
}


def check_name(name: str, input_name: str = "name") -> str:
    """Return a name without surrounding white space that can be a file's on any system.

    The host cuts an embedding's name at white space, ``<`` and ``[``, and a path separator would leave the folder.

    Raises
    ------
    UserError
        Naming the input.
    """
    tidy = name.strip()
    if not tidy:
        raise UserError(f"{input_name} is empty; type a name made of letters, digits, - and _, such as my-cat.")
    if len(tidy) > _LONGEST:
        raise UserError(f"{input_name} is {len(tidy)} characters long; use at most {_LONGEST}.")
    if not _NAME.fullmatch(tidy):
        raise UserError(f"{input_name} is {quoted(tidy)}; use only letters, digits, - and _ (no path, no spaces).")
    if tidy.casefold() in _RESERVED:
        raise UserError(f"{input_name} is {quoted(tidy)}, which Windows keeps for a device; choose another name.")
    return tidy
