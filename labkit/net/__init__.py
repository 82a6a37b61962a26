"""The network around a connection: addresses, certificates, tokens, and what is logged of it."""
