"""Hooks into the host's sampler, the conditional pass, and the attention captured in it."""
