"""Detectors: what they find, the kinds there are, and their files, read without running anything in them."""
