"""Every error that Carina raises on purpose, in one tree, with one list of unique codes; see `shared.errors.base`."""
# ruff: noqa: F403 - a list of 70 names here would repeat the modules; each name is defined in one of them

from shared.errors.base import *
from shared.errors.files import *
from shared.errors.requests import *
from shared.errors.services import *
from shared.errors.setup import *
