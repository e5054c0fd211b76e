"""The list of recordings: read from the directory, or from the index."""
