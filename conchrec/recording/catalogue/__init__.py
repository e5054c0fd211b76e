"""The recordings as a list that can be searched."""
