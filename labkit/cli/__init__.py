"""The commands that fill a module of their own."""
