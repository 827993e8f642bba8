"""Train the miniature world from its seeds: ``python -m miniworld.train``.

Autoencoder (its decoder twice), UNet and judge are trained in turn in ``miniworld/run/`` and written to
``miniworld/weights/``. An interrupted run continues where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from .networks.autoencoder import Autoencoder
from .networks.checkpoint import WEIGHTS, dequantise, load_small, load_unet, quantise, save_small
from .training.autoencoder import polish_decoder, psnr, train_autoencoder
from .training.judge import train_judge
from .training.unet import encode_pictures, train_unet
from .world import instances
from .world.dataset import training_pictures

log = logging.getLogger("compinv.miniworld")
PICTURES = 16_000
AUTOENCODER_PICTURES = 12_000
HELD_OUT = 300
"""The last pictures of the set: the autoencoder is measured on them and not trained on them."""


def as_stored(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as a user's checkpoint will have them, rounding included."""
    return dequantise(quantise(weights))


def load_autoencoder(weights: dict[str, torch.Tensor]) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict(weights)
    return model.eval()


def store_autoencoder(weights: dict[str, torch.Tensor], pictures: torch.Tensor) -> None:
    """Store the autoencoder with its quality as stored, on held-out scenes and on the own things' photos."""
    stored = load_autoencoder(as_stored(weights))
    photos = torch.cat([torch.from_numpy(instances.photos(i)[0]) for i in instances.INSTANCES.values()])
    quality = {"scenes": psnr(stored, pictures[-HELD_OUT:]), "instances": psnr(stored, photos.permute(0, 3, 1, 2))}
    log.info("autoencoder, dB: %s", quality)
    save_small(weights, WEIGHTS / "autoencoder.safetensors", {"psnr_db": json.dumps(quality)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent / "run", help="training state and pictures"
    )
    parser.add_argument("--only", choices=("autoencoder", "unet", "judge"), help="train just one network")
    parser.add_argument("--compile", action="store_true", help="compile the UNet: faster, takes a C++ compiler")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while decoder and UNet train")
    parser.add_argument(
        "--further", action="store_true", help="train the weights in git further, in a --folder of their own"
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)

    pictures, captions = training_pictures(options.folder, PICTURES)
    start = None
    if options.further:
        weights, _ = load_small(WEIGHTS / "autoencoder.safetensors")
        start = load_unet()
    else:
        weights = as_stored(train_autoencoder(pictures[:AUTOENCODER_PICTURES], options.folder))
    if options.only != "unet":  # The UNet needs the encoder alone, which polishing leaves as it is.
        weights = polish_decoder(weights, pictures[:AUTOENCODER_PICTURES], options.folder, options.bfloat16)
    autoencoder = load_autoencoder(as_stored(weights))
    if options.only in (None, "autoencoder"):
        store_autoencoder(weights, pictures)
    if options.only in (None, "unet"):
        latents = encode_pictures(autoencoder, pictures, options.folder)
        average, scale = train_unet(latents, captions, options.folder, start, options.compile, options.bfloat16)
        save_small(
            average,
            WEIGHTS / "unet.safetensors",
            {"latent_shift": repr(scale.shift), "latent_scale": repr(scale.scale)},
        )
    if options.only in (None, "judge"):
        judge, scores = train_judge(autoencoder, options.folder)
        save_small(judge, WEIGHTS / "judge.safetensors", {"accuracy": json.dumps(scores)})


if __name__ == "__main__":
    main()
