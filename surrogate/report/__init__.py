"""How well the transformer predicts the DSO: scores, plain methods beside it, tables and figures."""
