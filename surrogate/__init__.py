"""The transformer that predicts the DSO from a data set of its answers to what each microgrid sees."""
