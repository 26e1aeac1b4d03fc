"""Studies: which of their results are authoritative, and new jobs for them."""
