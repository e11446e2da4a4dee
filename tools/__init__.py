"""Scripts for a checkout; nothing in the package imports them. README.md says what each makes."""
