"""Datasets, trainings, evaluations, schedules and the gate: their requests, and the trainer's tasks."""
