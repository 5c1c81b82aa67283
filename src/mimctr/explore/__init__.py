"""A local web page over a finished run: its items, users, neighbors and slices."""
