"""``conchrec ca``: exports the keys of our authorities, signs, rotates and revokes."""
