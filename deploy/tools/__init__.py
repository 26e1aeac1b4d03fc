"""Tools that make files of the repository. No service imports them, and no container image contains them.

* `chest_classifier` trains and evaluates the classifier that `shared.imaging.chest_classifier` runs.
* `fit_phantom_figures` computes `shared/phantoms/figures.json` from a table of labelled boxes.
* `pictures` takes the pictures of the documentation.
"""
