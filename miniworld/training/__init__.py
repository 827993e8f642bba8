"""How the networks are trained from their seeds."""
