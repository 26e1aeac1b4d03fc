"""Datasets, trainings, evaluations, schedules and the gate: what is asked for, and the tasks that the trainer takes."""
