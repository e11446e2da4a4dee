"""The report: what is known of a run as one page, and its charts as pictures."""
