"""For notebooks: a server, a turn that shows itself, a loop to run in, copies to work on."""
