"""Objects become a running service."""
