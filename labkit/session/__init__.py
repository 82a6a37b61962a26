"""The heart: one conversation, whatever the dialect that carries it."""
