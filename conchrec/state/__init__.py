"""State that several processes share, in the state directory."""
