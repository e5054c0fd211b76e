"""How recordings are stored on disk."""
