"""The verbs: each orders the steps of one command and returns or reports what came out. Nothing prints here."""
