"""The prompt as the host reads and encodes it, and words as its text encoder knows them."""
