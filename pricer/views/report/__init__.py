"""The report: one HTML page about a run, and its charts as pictures."""
