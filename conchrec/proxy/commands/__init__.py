"""Commands that a user gives to the proxy itself over SSH."""
