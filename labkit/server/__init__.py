"""Sockets to sessions, and sessions to the voice pipeline."""
