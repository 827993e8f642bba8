"""What pictures are worth: likeness to photos and prompt, which things are there and how often, with intervals."""
