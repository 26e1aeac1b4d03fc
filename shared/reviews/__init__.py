"""Reviews of a model's findings: one row for each action of a reader, and the state that follows from the rows."""
