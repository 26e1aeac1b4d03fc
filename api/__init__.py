"""The intake API: studies come in over HTTP, findings go out."""
