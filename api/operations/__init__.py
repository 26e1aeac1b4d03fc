"""Routes for operators: the queue, webhooks and API keys; and the metrics that `/metrics` shows."""
