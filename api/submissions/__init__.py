"""Routes of bulk submissions."""
