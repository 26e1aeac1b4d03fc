"""Routes for operators: the queue, webhooks, API keys and the audit; and the metrics that `/metrics` shows."""
