"""Captures a session while it runs: streams, commands and file transfers become a recording."""
