"""The configuration file becomes one frozen value."""
