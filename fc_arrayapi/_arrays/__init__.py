"""Array libraries: which one an array belongs to, what is special about it, words for messages."""
