"""What every route stands on: authentication, limits, bodies, errors, audit."""
