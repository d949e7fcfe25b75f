"""Training: the one step, the run that takes it, and the checkpoints from which it goes on."""
