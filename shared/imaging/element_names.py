"""How a message names a data element: by its keyword and its tag, and never by what it holds."""

from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag


def name_of(element: str | int) -> str:
    """The name of an element that is given by its keyword or its tag, as `Rows (0028,0010)`."""
    tag = Tag(element)
    return f"{keyword_for_tag(tag) or 'A private element'} ({tag.group:04X},{tag.element:04X})"
