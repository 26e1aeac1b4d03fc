"""Intake of files: receives single files and unpacks archives."""
