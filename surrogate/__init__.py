"""The transformer that predicts the DSO (not there yet)."""
