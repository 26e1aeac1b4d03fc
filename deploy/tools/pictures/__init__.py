"""The pictures of the documentation, each drawn by a script from what Carina makes of phantoms."""
