"""The trainer: datasets, training, evaluation and the gate, as tasks that are leased and can be killed at any time."""
