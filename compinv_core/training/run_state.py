"""A training run on disk: what is needed to continue it to the same bits on the same machine, and to refuse another.

``state.safetensors`` holds the tensors, and in its header the step, the losses and the fingerprint, so that one rename
replaces all of it. ``run.json`` repeats the settings for people. A run that is begun anew sets the old state aside as
``previous.safetensors``.
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

from .. import logger
from ..basics.atomic_file import check_writable, remove_leftovers, replacing
from ..basics.digests import differing
from ..basics.errors import UserError, listed, quoted
from ..basics.tensor_file import read_metadata, read_tensors, write_tensors

STATE_FILE = "state.safetensors"
PREVIOUS_FILE = "previous.safetensors"
BEST_FILE = "best.safetensors"
SUMMARY_FILE = "run.json"

_FORMAT = "compinv-run-1"
_LARGEST_STATE = 1 << 40
CURE = "turn `resume` off to begin anew"
"""End of every sentence about a state that cannot be continued."""


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
        header = self._read_header(path)
        return header["step"] if self._continuable(header, steps) else None

    def check_room(self, state_bytes: float, continues: bool) -> None:
        """Refuse a run whose state cannot be written: no right to, or no room.

        Parameters
        ----------
        state_bytes : float
            Of one state; while it is replaced there are two.
        continues : bool
            Whether the saved state is continued; otherwise it is set aside, in the place of an earlier one.

        Raises
        ------
        UserError
        """
        remove_leftovers(self.folder, own=True)
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        path, previous = self.folder / STATE_FILE, self.folder / PREVIOUS_FILE
        replaced = path if continues else previous
        needed = 2 * state_bytes - (replaced.stat().st_size if path.exists() and replaced.exists() else 0)
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
            return None
        if resume:
            header = self._read_header(path)
            if self._continuable(header, steps):
                logger.info("Continuing %s at step %d of %d.", self.folder.name, header["step"], steps)
                file = read_tensors(path, "a training state", CURE, _LARGEST_STATE, finite=False)
                return RunState(header["step"], file.tensors, header["facts"])
        os.replace(path, self.folder / PREVIOUS_FILE)
        return None

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

    def keep_best(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the task's tensors after a step beside the state, over those kept before."""
        write_tensors(self.folder / BEST_FILE, tensors, {"step": str(step)})

    def read_best(self, step: int) -> dict[str, torch.Tensor] | None:
        """Return the task's tensors that were kept after this very step, or None.

        Raises
        ------
        UserError
            When the file cannot be read.
        """
        path = self.folder / BEST_FILE
        if not path.exists() or read_metadata(path).get("step") != str(step):
            return None
        return dict(read_tensors(path, "the kept state of a training", CURE, _LARGEST_STATE).tensors)

    def finish(self) -> None:
        """Clear away what killed processes left, now that the run is at its end."""
        remove_leftovers(self.folder, own=True, young=True)

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

    def _read_header(self, path: Path) -> dict[str, Any]:
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


class BestState:
    """The task's tensors after the best step so far: in the run's folder, or in memory where there is none."""

    def __init__(self, store: RunStore | None) -> None:
        self._store = store
        self._step, self._tensors = -1, dict[str, torch.Tensor]()

    def keep(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep these in the place of those before."""
        if self._store is not None:
            self._store.keep_best(step, tensors)
        else:
            self._step, self._tensors = step, {name: t.detach().cpu().clone() for name, t in tensors.items()}

    def read(self, step: int) -> dict[str, torch.Tensor] | None:
        """Return those of this step, or None if others are kept."""
        if self._store is not None:
            return self._store.read_best(step)
        return self._tensors if self._step == step else None
