"""The web face: public keys for targets and users, over HTTP."""
