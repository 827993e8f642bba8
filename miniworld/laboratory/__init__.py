"""Experiments with the miniature world: recipes, pictures, and what the judge says of them."""
