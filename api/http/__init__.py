"""The base of all routes: authentication, limits, bodies, errors, audit."""
