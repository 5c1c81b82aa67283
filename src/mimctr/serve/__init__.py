"""Scoring candidates for a user, online: the same numbers as offline."""
