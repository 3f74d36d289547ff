"""The command line, recipes, `sdaxr info` and `sdaxr demo`: files in the place of Datasets, no logic of their own."""
