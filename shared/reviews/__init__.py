"""What readers say of a model's findings: a row each time, and what follows from the rows."""
