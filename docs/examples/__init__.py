"""Scripts to run and change; the pages import their functions, with docs/ on the path."""
