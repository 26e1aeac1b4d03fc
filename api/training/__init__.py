"""Routes of datasets, trainings, evaluations, schedules, models and the gate."""
