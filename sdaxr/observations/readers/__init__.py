"""Readers of other people's observations: one file for each kind of source; `registry` lists them."""
