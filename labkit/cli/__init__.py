"""The command line: parses, chooses, prints. What it does is done by the package.

Commands import what they use when they run, so that `labkit --help` comes at once.
"""
