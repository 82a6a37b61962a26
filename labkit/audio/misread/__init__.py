"""Audio that is not what its caller declared: found by its bytes and by its pace."""
