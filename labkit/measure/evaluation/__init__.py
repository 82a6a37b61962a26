"""The embedded models, measured against their bars."""
