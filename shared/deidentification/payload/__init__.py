"""Removes all parts of pixel data that decoding does not need, because these parts can contain text.

Nothing is decoded: the parts that define the pixels are copied bit for bit. Pixel data that cannot be parsed is
rejected.
"""
