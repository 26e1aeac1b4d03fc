"""The detector: its card, its architectures, its weights and the code that runs it.

`card` needs no torch, so that the API may read cards; every other module here does.
"""
