"""Layout data sets, and the predictor that is learned from them (Eq. 8)."""
