"""Steps of the inner login."""
