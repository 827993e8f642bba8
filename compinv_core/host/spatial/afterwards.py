"""What a guiding node says of the samplings of its model, which run when the node itself has long been left."""

from __future__ import annotations

from comfy_execution.utils import get_executing_context

from ...basics.errors import Remark, Remarks


class Afterwards:
    """Says that nothing was guided, unless another sampling of the same run of the graph was.

    A graph may well go on unguided in a second pass.

    Parameters
    ----------
    node : Remarks
        Of the guiding node.
    node_name : str
        Opens the sentences.
    """

    def __init__(self, node: Remarks, node_name: str) -> None:
        self.node = node
        self._node_name = node_name
        self._run: str | None = None
        self._guided = False
        self._late: list[Remark] = []

    def begin(self) -> None:
        """Begin a sampling: what was said in another run of the graph stands no longer."""
        running = get_executing_context()
        run = running.prompt_id if running else None
        if run is None or run != self._run:
            self._run, self._guided = run, False
            self._take_back()

    def guided(self) -> None:
        """Say nothing of this sampling, nor of others of the run."""
        self._guided = True
        self._take_back()

    def unguided(self, sentence: str) -> None:
        """Say why nothing was guided in this sampling."""
        if not self._guided:
            self._late.append(self.say(sentence))

    def say(self, sentence: str) -> Remark:
        """Say something of a sampling that stands even where another was guided."""
        return self.node.say(f"{self._node_name}: {sentence}")

    def _take_back(self) -> None:
        if self._late:
            self.node.take_back(self._late)
            self._late = []
