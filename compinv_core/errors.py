"""The error that is meant for the person at the graph."""

from __future__ import annotations


class UserError(ValueError):
    """An input that the person at the graph can put right.

    The message is one sentence: what was wrong, what was expected, and which node or input cures it.
    It is raised before any long work starts.
    """
