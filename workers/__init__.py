"""What Celery runs: `prepare` makes renditions, `detect` finds, `sweep` brings back what was lost on the way."""
