"""How good a detector's boxes are: metrics over the images of a split, their uncertainty, and the report.

Nothing here knows a database, a model or torch: boxes go in, numbers and one HTML file come out.
"""
