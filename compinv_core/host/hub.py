"""Download of networks from the Hugging Face hub, only where the person chose one.

The hub's own client would keep its bookkeeping and half-loaded files among the models, and has no hook for the host's
progress bar and stop button that all its supported versions share; it does say where the files are.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import comfy.model_management
import comfy.utils

from ..basics.atomic_file import replacing
from ..basics.errors import UserError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
_NOT_FOUND = 404


def fetch(name: str, files: Sequence[str | tuple[str, ...]], folder: Path) -> Path:
    """Return the folder of a network; download what of it is not there yet.

    The progress bar follows the download and the stop button ends it. What was half downloaded is thrown away.

    Parameters
    ----------
    name : str
        On the hub, such as "facebook/detr-resnet-50".
    files : sequence of str or tuple of str
        What is needed; of several in a tuple the first that the hub has is enough.
    folder : Path
        Where they belong, below ``models/``.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    UserError
        When the download fails, or the person has forbidden downloads (``HF_HUB_OFFLINE``).
    """
    for file in files:
        choices = (file,) if isinstance(file, str) else file
        if not any((folder / choice).is_file() for choice in choices):
            _download(name, choices, folder)
    return folder


def _download(name: str, choices: tuple[str, ...], folder: Path) -> None:
    by_hand = f"put the folder {folder.name} into models/compinv/{folder.parent.name}"
    try:
        from huggingface_hub import constants, hf_hub_url
    except ImportError as error:
        raise UserError(
            f"Downloading {name} needs the package huggingface_hub ({error}); install it with: "
            "pip install huggingface_hub."
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{name} is not downloaded yet and HF_HUB_OFFLINE forbids it; unset that variable, or {by_hand}."
        )
    for file in choices:
        try:
            with replacing(folder / file) as temporary, temporary.open("wb") as written:
                for chunk in _chunks(hf_hub_url(name, file)):
                    written.write(chunk)
            return
        except (urllib.error.URLError, OSError) as error:
            absent = isinstance(error, urllib.error.HTTPError) and error.code == _NOT_FOUND
            if absent and file != choices[-1]:
                continue
            raise UserError(
                f"{file} of {name} could not be downloaded ({error}); check the connection, or {by_hand}."
            ) from error


def _chunks(url: str) -> Iterator[bytes]:
    """The content of the address, with progress; ends in an error when less comes than was announced."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        bar = comfy.utils.ProgressBar(max(total, 1))
        received = 0
        while chunk := answer.read(_CHUNK_BYTES):
            comfy.model_management.throw_exception_if_processing_interrupted()
            received += len(chunk)
            bar.update_absolute(received, max(total, received))
            yield chunk
    if received < total:
        raise OSError(f"only {received} of {total} bytes came")
