r"""Methods that need the physical model, given as a Markov chain with Gaussian noise.

.. math:: x_{t+1} = f(x_t) + N(0, Q), \qquad y_t = H_t(x_t) + \epsilon_t

These methods are references for score-based methods: `Kalman` draws from the exact posterior, `FFBS` does in the limit
of many particles. `BPF` and `FourDVar` are classical methods to compare with:

==========  ==================================================================================
``bpf``     bootstrap particle filter; members are the ancestries of the last particles
``ffbs``    forward filter, backward simulation: independent draws of the posterior
``kalman``  Kalman filter and backward draws: exact where system and operators are linear
``4dvar``   weak-constraint 4D-Var: each member is a mode of the posterior
==========  ==================================================================================

`sdaxr.assimilate` calls `sdaxr.filters.smoothing.smooth` where it is given a ``system``. Both return posterior Datasets
of the same form.
"""
