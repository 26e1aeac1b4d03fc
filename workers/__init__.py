"""The Celery workers: `intake`, `prepare`, `detect`, `notify` and `sweep`."""
