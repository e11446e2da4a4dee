"""Disk and network: items, bases, checkpoints and run folders. Never imports torch."""
