"""Who may do what, and who did it: API keys, console sessions, quotas, the audit."""
