"""Winograd's tiles: points, passes, transforms, and the family that chooses among them."""
