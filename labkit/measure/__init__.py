"""Marks of a turn, experiments over them, and their figures."""
