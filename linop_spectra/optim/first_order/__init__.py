"""First-order methods set by a spectrum, and what it predicts of them."""
