"""The two certificate authorities: their keys, rotation and revocation."""
