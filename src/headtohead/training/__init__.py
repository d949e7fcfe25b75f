"""Training: the one step, the run, and the checkpoints from which it resumes."""
