"""The detector: its card, its architectures, its weights and the code that runs it.

`architectures`, `boxes`, `card`, `demo` and `fitting` do not need torch, so the API can use them.
"""
