"""Trains the classifier of whole films that `shared.imaging.suitability` asks: `python -m tools.chest_classifier`."""
