"""How good policies are: scores, what they are measured between, and how sure they are."""
