"""Synthetic chest films with known lesions: what Carina shows, tests and learns with where no real film may go."""

from shared.phantoms.figures import CLASS_NAMES
from shared.phantoms.phantom import Lesion, Phantom, make_phantom

__all__ = ["CLASS_NAMES", "Lesion", "Phantom", "make_phantom"]
