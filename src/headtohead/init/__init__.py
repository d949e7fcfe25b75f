"""`h2h init`: from a file of articles to a preset that suits it, this machine and the time there is."""
