"""What the pack does on a graphics card."""
