"""The connection to the target: login, candidate keys and prompts."""
