"""One module per verb: OPTIONS and run(arguments)."""
