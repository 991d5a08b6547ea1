"""Expressions to text, one file a language. Only these know precedence, literals, and how a primitive is spelled."""
