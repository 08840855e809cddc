"""The methods that the scopes are compared with."""
