"""Names of data elements in messages: keyword and tag, never the value."""

from pydicom.datadict import keyword_for_tag
from pydicom.tag import Tag


def name_of(element: str | int) -> str:
    """Return the name of an element, given by keyword or tag, such as `Rows (0028,0010)`."""
    tag = Tag(element)
    return f"{keyword_for_tag(tag) or 'A private element'} ({tag.group:04X},{tag.element:04X})"
