r"""Methods that need the physical model: a system, with Gaussian noise or deterministic (Q = 0).

.. math:: x_{t+1} = f(x_t) + N(0, Q), \qquad y_t = H_t(x_t) + \epsilon_t

These methods are references for score-based methods. With Gaussian noise `Kalman` draws from the exact posterior,
`FFBS` does in the limit of many particles; `BPF` and `FourDVar` are classical methods to compare with. Ensemble methods
take any system; those of the Kalman type are exact in the limit of many members where system and operators are linear,
and the pages of `pff`, `ensf` and `enff` say what their draws become:

==========  ==================================================================================
``bpf``     bootstrap particle filter; members are the ancestries of the last particles
``ffbs``    forward filter, backward simulation: independent draws of the posterior
``kalman``  Kalman filter and backward draws: exact where system and operators are linear
``4dvar``   weak-constraint 4D-Var: each member is a mode of the posterior
``enkf``    stochastic ensemble Kalman filter, with or without localisation
``etkf``    ensemble transform Kalman filter: the symmetric square root
``ensrf``   serial ensemble square root filter, with or without localisation
``letkf``   local ensemble transform Kalman filter
``enks``    ensemble Kalman smoother: the analyses of a filter, applied to earlier states, too
``ienks``   iterative ensemble Kalman smoother, for deterministic systems
``pff``     particle flow filter: members move to the posterior, and repel each other
``ensf``    ensemble score filter: draws by a reverse diffusion, whose score the members give
``enff``    ensemble flow filter: draws by a guided flow, whose velocity the members give
``latent``  any ensemble filter in the space of EOFs
==========  ==================================================================================

`sdaxr.assimilate` calls `sdaxr.filters.smoothing.smooth` where it is given a ``system``. Both return posterior Datasets
of the same form.
"""
