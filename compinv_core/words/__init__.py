"""Words without an encoder: nouns and the labels that mean them, phrases of a prompt, template sentences."""
