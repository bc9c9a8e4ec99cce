"""Side-by-side measurements: each prints ratios and says with which command it was made."""
