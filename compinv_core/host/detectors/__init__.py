"""Detectors in the host's folders and memory."""
