"""What a training had learned after some of its steps, kept so that any of them can become the result."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from ...basics.atomic_file import replacing
from ...basics.tensor_file import read_metadata, read_tensors, write_tensors

BEST_FILE = "best.safetensors"
SAVED_FOLDER = "saved"
LARGEST_STEP = 64 * 2**20
"""Bytes of what is kept of each save: words and thin factors, not the weights of a model."""

_MOST_BYTES, _MOST_STEPS = 2**30, 60
_LARGEST_FILE = 1 << 40
_TENSORS, _PICTURE = ".safetensors", ".jpg"

Tensors = Mapping[str, torch.Tensor]


class SavedSteps:
    """Files of the steps of one run, in its folder.

    Parameters
    ----------
    run : Path
        Made when first written to.
    cure : str
        End of the sentence about a file that cannot be read.
    """

    def __init__(self, run: Path, cure: str) -> None:
        self.folder, self._best, self._cure = run / SAVED_FOLDER, run / BEST_FILE, cure

    def keep(self, step: int, tensors: Tensors) -> None:
        """Write a task's tensors after a step, if they are small; what a run had after it is no part of it any more.

        Where there would be too many, one goes that has others near.
        """
        for later in self.steps():
            if later > step:
                self._path(later).unlink(missing_ok=True)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if not 0 < size <= LARGEST_STEP:
            return
        write_tensors(self._path(step), tensors, {"step": str(step)})
        kept = self.steps()
        while len(kept) > max(2, min(_MOST_STEPS, _MOST_BYTES // size)):
            crowded = min(range(1, len(kept) - 1), key=lambda at: kept[at + 1] - kept[at - 1])
            self._path(kept.pop(crowded)).unlink(missing_ok=True)

    def keep_best(self, step: int, tensors: Tensors) -> None:
        """Write a task's tensors after the best step so far, however large, over those kept before."""
        write_tensors(self._best, tensors, {"step": str(step)})

    def steps(self) -> list[int]:
        """Return the steps that were small enough to be kept, in order."""
        return self._numbers(_TENSORS)

    @property
    def best(self) -> int | None:
        """The step that was kept as the best."""
        step = read_metadata(self._best).get("step", "")
        return int(step) if step.isdecimal() else None

    def read(self, step: int) -> dict[str, torch.Tensor] | None:
        """Return the task's tensors after a step, or None if they were not kept.

        Raises
        ------
        UserError
            When the file cannot be read.
        """
        path = self._best if self.best == step else self._path(step)
        if not path.exists():
            return None
        return dict(read_tensors(path, "a saved step of a training", self._cure, _LARGEST_FILE).tensors)

    def keep_picture(self, step: int, jpeg: bytes) -> None:
        """Write the preview after a step, and remove those that are the newest of no saved step."""
        pictures = {number for number in self.pictures() if number < step}
        needed = {max((picture for picture in pictures if picture <= saved), default=0) for saved in self.steps()}
        for number in set(self.pictures()) - needed:
            self.picture_path(number).unlink(missing_ok=True)
        with replacing(self.picture_path(step)) as temporary:
            temporary.write_bytes(jpeg)

    def pictures(self) -> list[int]:
        """Return the steps of the previews that are there, in order."""
        return self._numbers(_PICTURE)

    def picture_path(self, step: int) -> Path:
        """Return the file of the preview after a step."""
        return self._path(step, _PICTURE)

    def clear(self) -> None:
        """Remove everything that was kept along the way: the run begins anew."""
        for suffix in (_TENSORS, _PICTURE):
            for step in self._numbers(suffix):
                self._path(step, suffix).unlink(missing_ok=True)
        self._best.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, step: int, suffix: str = _TENSORS) -> Path:
        return self.folder / f"{step:06d}{suffix}"

    def _numbers(self, suffix: str) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob(f"*{suffix}") if path.stem.isdecimal())


class BestState:
    """The task's tensors after the best step so far: in the run's folder, or in memory where there is none."""

    def __init__(self, saved: SavedSteps | None) -> None:
        self._saved = saved
        self._step, self._tensors = -1, dict[str, torch.Tensor]()

    def keep(self, step: int, tensors: Tensors) -> None:
        """Keep these in the place of those before."""
        if self._saved is not None:
            self._saved.keep_best(step, tensors)
        else:
            self._step, self._tensors = step, {name: t.detach().cpu().clone() for name, t in tensors.items()}

    def read(self, step: int) -> dict[str, torch.Tensor] | None:
        """Return those of this step, or None if others are kept."""
        if self._saved is not None:
            return self._saved.read(step)
        return self._tensors if self._step == step else None
