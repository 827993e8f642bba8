"""A training run on disk: what is needed to continue it to the same bits on the same machine, and to refuse another.

``state.safetensors`` holds the tensors, and in its header the step, the losses and the fingerprint, so that one rename
replaces all of it. ``run.json`` repeats the settings for people, ``saved/`` holds what was learned after some steps. A
run that is begun anew sets the old state aside as ``previous.safetensors``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import logger
from ...basics.atomic_file import check_writable, remove_leftovers, replacing
from ...basics.digests import differing
from ...basics.errors import UserError, listed, quoted
from ...basics.tensor_file import read_metadata, read_tensors, write_tensors
from .saved_steps import SavedSteps

STATE_FILE = "state.safetensors"
PREVIOUS_FILE = "previous.safetensors"
SUMMARY_FILE = "run.json"

_FORMAT = "compinv-run-1"
_LARGEST_STATE = 1 << 40
CURE = "turn `resume` off to begin anew"
"""End of every sentence about a state that cannot be continued."""

TASK = "task."
"""How the names of the task's tensors begin."""


@dataclass(frozen=True, eq=False)
class RunState:
    """A training run between two steps.

    Attributes
    ----------
    step : int
        Steps done.
    tensors : mapping of str to Tensor
        Parameters, optimiser, random generator and whatever the task adds.
    facts : mapping
        JSON values: losses so far, loss scale.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]

    @property
    def task_tensors(self) -> dict[str, torch.Tensor]:
        """What the task itself has."""
        return {name.removeprefix(TASK): tensor for name, tensor in self.tensors.items() if name.startswith(TASK)}

    def check_complete(self, wanted: Mapping[str, torch.Tensor], optimizer: str | None) -> None:
        """Refuse a state that lacks tensors or has them in another shape; `optimizer` is how its tensors begin.

        Raises
        ------
        UserError
        """
        wrong = [
            name
            for name, tensor in wanted.items()
            if name not in self.tensors or self.tensors[name].shape != tensor.shape
        ]
        if optimizer is not None and not any(name.startswith(optimizer) for name in self.tensors):
            wrong.append("the optimiser")
        wrong += [name for name in ("history", "loss_scale", "good_steps") if name not in self.facts]
        if wrong:
            raise UserError(f"The training state lacks {listed(wrong)}, or has it in another shape; {CURE}.")


class RunStore:
    """The folder of one training run.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    fingerprint : mapping of str to str
        Everything that the result depends on, except the number of steps: settings as text, data as digests.
    settings : mapping
        JSON values for ``run.json``.
    earlier : callable () -> mapping of str to str
        How earlier versions wrote parts of the fingerprint, so that their runs are known again.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, str],
        settings: Mapping[str, Any],
        earlier: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.folder = folder
        self.fingerprint = dict(fingerprint)
        self.settings = dict(settings)
        self._earlier = earlier
        self.saved = SavedSteps(folder, CURE)

    def check(self, steps: int, resume: bool) -> int | None:
        """Refuse early what `open` would refuse, and a folder that cannot be written to; changes nothing.

        Returns
        -------
        int or None
            Steps that are done already, or None where `open` would begin anew.

        Raises
        ------
        UserError
            As in `open`.
        """
        path = self.folder / STATE_FILE
        if not (resume and path.exists()):
            return None
        header = self.read_header()
        return header["step"] if self._continuable(header, steps) else None

    def check_room(self, state_bytes: float, continues: bool, best_bytes: float = 0) -> None:
        """Refuse a run whose state cannot be written: no right to, or no room.

        Parameters
        ----------
        state_bytes : float
            Of one state; while it is replaced there are two.
        continues : bool
            Whether the saved state is continued; otherwise it is set aside, in the place of an earlier one.
        best_bytes : float
            Of the best step, where it is kept beside the state; while it is replaced there are two.

        Raises
        ------
        UserError
        """
        remove_leftovers(self.folder, own=True)
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        path, previous = self.folder / STATE_FILE, self.folder / PREVIOUS_FILE
        replaced = path if continues else previous
        needed = 2 * (state_bytes + best_bytes) - (
            replaced.stat().st_size if path.exists() and replaced.exists() else 0
        )
        free = shutil.disk_usage(existing).free
        if needed > free:
            remove_leftovers(self.folder, own=True, young=True)
            free = shutil.disk_usage(existing).free
        if needed > free:
            raise UserError(
                f"The training state in the run folder {quoted(self.folder.name)} needs {needed / 1e9:.1f} GB, but "
                f"{free / 1e9:.1f} GB are free on that disk; free some room, or start ComfyUI with another "
                "--output-directory."
            )

    def open(self, steps: int, resume: bool) -> RunState | None:
        """Return the state to continue from, or None to begin at step 0; an old state is then set aside.

        Parameters
        ----------
        steps : int
            Steps wanted in all. A run may be continued to more steps than it was first asked for.
        resume : bool
            False begins anew in any case.

        Raises
        ------
        UserError
            When the folder holds an unfinished run of other settings or data, or a state that cannot be read, or
            nothing can be written there.
        """
        check_writable(self.folder)
        remove_leftovers(self.folder, own=True)
        path = self.folder / STATE_FILE
        if not path.exists():
            self.saved.clear()
            return None
        if resume:
            header = self.read_header()
            if self._continuable(header, steps):
                logger.info("Continuing %s at step %d of %d.", self.folder.name, header["step"], steps)
                file = read_tensors(path, "a training state", CURE, _LARGEST_STATE, finite=False)
                return RunState(header["step"], file.tensors, header["facts"])
        os.replace(path, self.folder / PREVIOUS_FILE)
        self.saved.clear()
        return None

    def check_saved(self, step: int) -> dict[str, Any]:
        """Refuse a saved step that cannot be the result of this training; return the header of its state.

        Raises
        ------
        UserError
            When there is no such run, it is another's, or the step was not kept.
        """
        begin = f"saved_step is {step}, but"
        if not (self.folder / STATE_FILE).exists():
            raise UserError(f"{begin} no training of this name has been saved; set it to 0 to train.")
        header = self.read_header()
        if others := differing(header["fingerprint"], self.fingerprint, self._earlier):
            raise UserError(
                f"{begin} the saved training of this name differs in {', '.join(others)}; restore those inputs, or set "
                "saved_step to 0 to train."
            )
        if step not in (kept := self.kept_steps(header)):
            raise UserError(f"{begin} of this training only {listed(kept)} can be chosen; or set it to 0.")
        return header

    def open_saved(self, step: int) -> RunState:
        """Return the run as it was after a saved step, without its optimiser; raises as `check_saved`."""
        header = self.check_saved(step)
        kept, path = self.saved.read(step), self.folder / STATE_FILE
        if kept is None:
            tensors = read_tensors(path, "a training state", CURE, _LARGEST_STATE, finite=False).tensors
        else:
            tensors = {f"{TASK}{name}": tensor for name, tensor in kept.items()}
        facts = dict(header["facts"])
        facts["history"] = {name: values[:step] for name, values in facts.get("history", {}).items()}
        facts["measured"] = [row for row in facts.get("measured", ()) if row[0] <= step]
        return RunState(step, tensors, facts)

    def kept_steps(self, header: Mapping[str, Any]) -> list[int]:
        """Return the steps of a saved run that can become its result: those kept on the way, the best, and the last."""
        last = header["step"]
        return sorted({step for step in (*self.saved.steps(), self.saved.best, last) if step and step <= last})

    def save(self, state: RunState, steps: int) -> None:
        """Write the state of a run that is to have so many steps; an interruption leaves the previous one intact."""
        header = {
            "format": _FORMAT,
            "step": state.step,
            "steps": steps,
            "fingerprint": self.fingerprint,
            "facts": dict(state.facts),
        }
        write_tensors(self.folder / STATE_FILE, state.tensors, {"run": json.dumps(header)})
        with replacing(self.folder / SUMMARY_FILE) as temporary:
            summary = {"step": state.step, "steps": steps, "settings": self.settings, "fingerprint": self.fingerprint}
            temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self.saved.keep(state.step, state.task_tensors)

    def finish(self) -> None:
        """Clear away what killed processes left, now that the run is at its end."""
        for folder in (self.folder, self.saved.folder):
            remove_leftovers(folder, own=True, young=True)

    def _continuable(self, header: Mapping[str, Any], steps: int) -> bool:
        """Tell whether the saved run is this one; refuse to lose another one that is unfinished."""
        others = differing(header["fingerprint"], self.fingerprint, self._earlier)
        if header["step"] > steps:
            others.append("steps")
        if others and header["step"] < header["steps"]:
            raise UserError(
                f"The run folder {quoted(self.folder.name)} holds an unfinished training that stopped at step "
                f"{header['step']} of {header['steps']} and differs in {', '.join(others)}; "
                "restore those inputs, turn `resume` off to begin anew, or choose another name."
            )
        if others:
            logger.info("%s was finished with another %s; training anew.", self.folder.name, ", ".join(others))
        return not others

    def read_header(self) -> dict[str, Any]:
        """Return what the state says of itself: ``step``, ``steps``, ``fingerprint`` and ``facts``.

        Raises
        ------
        UserError
            When it cannot be read.
        """
        path = self.folder / STATE_FILE
        try:
            header = json.loads(read_metadata(path)["run"])
            if header["format"] != _FORMAT:
                raise ValueError(f"format {header['format']}")
            counts = (header["step"], header["steps"])
            if not all(isinstance(count, int) for count in counts) or not isinstance(header["fingerprint"], dict):
                raise TypeError("steps or fingerprint")
            if not isinstance(header["facts"], dict):
                raise TypeError("facts")
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError(
                f"The training state {path.name} in the run folder {quoted(self.folder.name)} cannot be read "
                f"({error}); {CURE}."
            ) from error
        return header
