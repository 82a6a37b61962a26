"""What the notebooks use besides the server: checks, and servers that are wrong on purpose."""
