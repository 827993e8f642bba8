"""Cross-attention that was recorded while sampling: its measures and pictures."""
