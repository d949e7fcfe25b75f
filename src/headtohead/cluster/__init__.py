"""`h2h run`: the pipeline's stages in parallel. Ray schedules them; DVC's run cache and remotes carry their results.

Nothing here decides a result: each stage runs by `dvc repro` in a clone of its own, and a last `dvc repro` in the
repository finds it in the run cache.
"""
