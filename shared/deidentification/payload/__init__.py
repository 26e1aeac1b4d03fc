"""Removes from pixel data every part that decoding does not need, as these parts can carry text.

Nothing is decoded: the parts that make the pixels are copied bit for bit. Pixel data that cannot be parsed is refused.
"""
