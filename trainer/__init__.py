"""The trainer: datasets, training, evaluation and the gate, as tasks that are leased and may be killed at any time."""
