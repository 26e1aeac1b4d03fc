"""API keys, console sessions, quotas and the audit."""
