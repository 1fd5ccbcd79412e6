"""What the tests share: the table of backends, assertions, arrays, wrong and hostile input."""
