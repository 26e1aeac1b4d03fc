"""From an uploaded file to the grey-level picture that the detector and the reader see.

`header` and `overlay` need no pixel decoder, so that the API can import them; `decode` and `rendition` do.
"""
