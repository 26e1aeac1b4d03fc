"""The terms that rows, wire and code share: states, scopes, actions. Pure Python."""
