"""The queue: rows in PostgreSQL are the truth, a Celery message is only a hint that there is work in a stage."""
