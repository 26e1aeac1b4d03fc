"""Train the classifier that `shared.imaging.suitability` uses: `python -m deploy.tools.chest_classifier`."""
