"""A terminal without a screen: what recorded output shows."""
