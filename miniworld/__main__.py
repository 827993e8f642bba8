"""Puts the miniature world into a ComfyUI: ``python -m miniworld /path/to/ComfyUI``.

The checkpoint goes to ``models/checkpoints/miniworld.safetensors``, photos of the twelve own things to ``input/``, each
with the thing as its mask. Existing photos are left as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from .networks.checkpoint import CHECKPOINT_NAME, assemble
from .world.instances import INSTANCES, photos


def write_photos(folder: Path) -> None:
    """Write `my-cat-1.png` and so on, transparent where the thing is: Load Image makes its mask of that."""
    for name, instance in INSTANCES.items():
        for number, (picture, mask) in enumerate(zip(*photos(instance), strict=True), start=1):
            path = folder / f"{name}-{number}.png"
            if not path.exists():
                alpha = np.round(255 * (1 - mask)).astype(np.uint8)
                Image.fromarray(np.dstack([picture, alpha])).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder, or its base directory")
    base = parser.parse_args().comfyui.expanduser()
    checkpoints, inputs = base / "models" / "checkpoints", base / "input"
    if missing := [str(folder) for folder in (checkpoints, inputs) if not folder.is_dir()]:
        sys.exit(
            f"There is no folder {' and no '.join(missing)}: give the folder that holds ComfyUI's models and input."
        )
    print(assemble(checkpoints / CHECKPOINT_NAME))
    write_photos(inputs)
    print(inputs)


if __name__ == "__main__":
    main()
