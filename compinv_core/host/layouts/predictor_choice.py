"""The layout predictors that a person can choose: two that come with the pack, and their own files."""

from __future__ import annotations

from ...basics.errors import UserError, quoted
from ...basics.names import check_name
from ...layouts.predictor import SIDE_BY_SIDE, AnyPredictor, SideBySide
from ...layouts.predictor_file import read_predictor
from ..folders import MINIATURE_WORLD, layout_predictor_path, layout_predictors, miniature_predictor_path


def predictor_names() -> list[str]:
    """Return what can be chosen."""
    bundled = [MINIATURE_WORLD] if miniature_predictor_path().is_file() else []
    return [SIDE_BY_SIDE, *bundled, *layout_predictors()]


def check_predictor_name(name: str) -> str:
    """Return a name under which a predictor can be saved and chosen again.

    Parameters
    ----------
    name : str
        As typed.

    Raises
    ------
    UserError
    """
    tidy = check_name(name, "filename")
    if tidy in (SIDE_BY_SIDE, MINIATURE_WORLD):
        raise UserError(
            f"filename is {quoted(tidy)}, which is a choice of Load Layout Predictor itself; type another name."
        )
    return tidy


def chosen_predictor(name: str) -> AnyPredictor:
    """Return one of `predictor_names`.

    Raises
    ------
    UserError
        When there is no such predictor, or its file cannot be read.
    """
    if name == SIDE_BY_SIDE:
        return SideBySide()
    if name not in predictor_names():
        raise UserError(
            f"There is no layout predictor {name!r}; choose another one, or put {name}.safetensors into "
            "models/compinv/layout."
        )
    return read_predictor(miniature_predictor_path() if name == MINIATURE_WORLD else layout_predictor_path(name))


def predictor_fingerprint(name: str) -> str:
    """Return a text that changes when the file of a predictor does."""
    if name not in layout_predictors():
        return ""
    facts = layout_predictor_path(name).stat()
    return f"{facts.st_mtime_ns} {facts.st_size}"
