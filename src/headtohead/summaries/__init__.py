"""Summaries of any articles, with a trained model."""
