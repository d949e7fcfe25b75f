"""Which variant to take for a length, a batch size and limits: the rule alone, without files."""
