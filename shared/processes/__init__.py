"""What each process keeps going: its loops, its readiness, its state file, its scratch folder."""
