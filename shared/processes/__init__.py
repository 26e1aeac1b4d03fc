"""Background loops, readiness, state file and scratch folder of each process."""
