"""The only modules of the pack that import ComfyUI; `compinv_core/README.md` lists them by subject."""
