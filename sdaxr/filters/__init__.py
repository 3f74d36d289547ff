"""Methods that need the physical model, as a chain with Gaussian noise: the truth to compare with, and the classics.

==========  ==================================================================================
``bpf``     bootstrap particle filter; its members are the ancestries of the last particles
``ffbs``    forward filter, backward simulation: independent draws of the posterior
``kalman``  Kalman filter and backward draws: exact where everything is linear
``4dvar``   weak-constraint 4D-Var: each member at a mode of the posterior
==========  ==================================================================================

`sdaxr.filters.smoothing.smooth` gives the same posterior Dataset as `sdaxr.assimilate`, which calls it where there is a
``system``.
"""
