"""From a file or a Hub data set to Items."""
