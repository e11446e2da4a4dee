"""What the verbs are put together from: none of these files is a command."""
