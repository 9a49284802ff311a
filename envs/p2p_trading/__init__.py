"""Environment P2P trading: microgrids propose trades, the DSO answers with an optimal power flow."""
