"""The web console: pages for users, with the same rows and routes as the API.

The server fills the templates. Dynamic parts are plain ES modules that call `/v1` with the session's cookie.
"""
