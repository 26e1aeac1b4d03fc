"""Turns an uploaded file into the grey-level rendition that the detector and the reader see.

`header` and `overlay` need no pixel decoder, so the API can import them. `decode` and `rendition` need one.
"""
