"""A session as it happens becomes a recording."""
