"""Tools that are run once in a while to make what the repository ships; no service imports them, and no image has them.

* `chest_classifier` trains and evaluates the classifier that `shared.imaging.chest_classifier` runs.
* `fit_phantom_figures` computes `shared/phantoms/figures.json` from a table of labelled boxes.
* `pictures` takes the pictures of the documentation.
"""
