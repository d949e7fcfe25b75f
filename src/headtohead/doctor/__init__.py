"""What `h2h doctor` finds out: what is here, what will run each variant and why, and whether its results are right.

Nothing is taken on trust: a library counts once it has been imported, and a backend once its results have been compared
with the float32 reference.
"""
