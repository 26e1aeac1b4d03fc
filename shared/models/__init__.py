"""The registry of models, and their promotion."""
