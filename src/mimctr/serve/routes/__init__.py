"""The service's routes, by what they do."""
