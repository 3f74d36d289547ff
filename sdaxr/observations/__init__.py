"""Observations: drawn from a truth or anybody's own, checked, and matched with the labels of an operator."""
