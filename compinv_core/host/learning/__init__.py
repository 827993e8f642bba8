"""A training on the host's MODEL, CLIP and VAE: checks, photos, the models opened for gradients, what comes out."""
