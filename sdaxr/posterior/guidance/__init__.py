"""Guidance: a denoiser of the prior and observations make a denoiser of the posterior, one method a file.

=================  ==============================================  ==================================================
method             covariance of H(x) given z                      exact for Gaussian priors
=================  ==============================================  ==================================================
``sda``            measured, scalar, bounded, of the prior          with the covariance of the prior
``mmps``           the network's Jacobian, a few Krylov steps       with enough steps
``jacobian_free``  of the prior, measured, or independent           with the covariance of the prior
``dmps``           r^2 H H^T around z itself (linear H)             for an uninformative prior
``soad``           measured or bounded; what is seen is a state    measured: with the covariance of the prior
``dps``            none: steps of a given length                    no
=================  ==============================================  ==================================================
"""
