"""A session as a file: recorded, signed, stored, found and played. Knows nothing of SSH."""
