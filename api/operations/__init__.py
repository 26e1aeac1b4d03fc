"""Routes for operators: the queue and webhooks."""
