"""Drills: a server is broken on purpose, and what it promises is checked.

A drill runs a server in a process of its own (`target`), misuses it in a way that its seed
decides, and gives a `verdict`: a row for each promise, with the figure found and the bar.
"""
