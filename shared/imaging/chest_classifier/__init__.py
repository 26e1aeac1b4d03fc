"""A small classifier of whole films: a frontal chest, one that is turned or inverted, or something else."""
