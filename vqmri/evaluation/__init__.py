"""How good it is, in numbers and in pictures."""
