"""A session as a file. Knows nothing of SSH."""
