"""How articles become tokens, and tokens the sequences that models see."""
