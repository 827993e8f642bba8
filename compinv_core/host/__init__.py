"""The only modules of the pack that import ComfyUI: model access, sampling hook, training session, progress."""
