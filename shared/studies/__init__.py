"""What is known of a study: which of its results count."""
