"""A training on disk: what is needed to go on, what was kept on the way, and who is at work there."""
