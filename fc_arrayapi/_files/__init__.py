"""Arrays and weights in files: one file for each format, with its reader and its writer."""
