"""What is drawn: things, looks, backgrounds, scenes with captions, and the own things' photos."""
