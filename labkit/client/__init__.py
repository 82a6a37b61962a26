"""Clients: one of the plain dialect that notes the times, and one whose session survives."""
