"""Webhooks: the messages that wait to be sent, and where they may be sent."""
