"""What goes over the wire: one dialect a module."""
