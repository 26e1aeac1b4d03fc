"""Teaches detectors: the loop, the metric and the script behind the demo model."""
