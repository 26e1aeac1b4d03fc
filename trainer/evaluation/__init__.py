"""Measures a detector: metrics over the images of a split, their confidence intervals, and the report.

These modules use no database, model or torch. They take boxes and return numbers and one HTML file.
"""
