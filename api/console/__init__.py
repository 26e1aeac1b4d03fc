"""The web console: pages for people over the same rows and routes that programs use.

Templates are filled on the server; what moves is plain ES modules that call `/v1` with the session's cookie.
"""
