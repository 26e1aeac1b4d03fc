"""Trains and evaluates the small detector that is shipped with Carina, on phantoms and on real films."""
