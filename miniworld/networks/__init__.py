"""The networks of the miniature checkpoint, its judge and its detectors, and their files."""
