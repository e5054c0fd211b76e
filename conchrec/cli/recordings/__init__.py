"""``conchrec recordings …``: find, show and keep recordings."""
