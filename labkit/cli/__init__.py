"""Commands, one module each; the command line registers them."""
