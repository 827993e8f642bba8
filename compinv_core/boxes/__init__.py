"""Boxes, layouts of phrases, and their pictures; boxes are (x0, y0, x1, y1) as fractions of the picture."""
