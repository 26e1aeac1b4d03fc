"""Synthetic chest images with known lesions, for the demo, tests and training where no real image may be used."""

from shared.phantoms.demo import DEMO_SEED, bad_files, demo_studies
from shared.phantoms.dicom import TRANSFER_SYNTAXES, encode_dicom, stored_values
from shared.phantoms.figures import CLASS_NAMES
from shared.phantoms.phantom import Lesion, Phantom, make_phantom

__all__ = [
    "CLASS_NAMES",
    "DEMO_SEED",
    "TRANSFER_SYNTAXES",
    "Lesion",
    "Phantom",
    "bad_files",
    "demo_studies",
    "encode_dicom",
    "make_phantom",
    "stored_values",
]
