"""Datasets: immutable sets of renditions with their boxes, readers, patients and splits."""
