"""One file for each command. It runs the steps in order and returns the result. Nothing prints here."""
