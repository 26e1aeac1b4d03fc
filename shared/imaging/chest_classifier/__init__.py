"""A small classifier of whole images: frontal chest, rotated chest, inverted chest, or other."""
