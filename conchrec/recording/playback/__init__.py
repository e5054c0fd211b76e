"""Recordings shown again, also while they are written."""
