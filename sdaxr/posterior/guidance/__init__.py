r"""Guidance: observations turn the denoiser of a prior into a denoiser of the posterior; one method a file.

.. math:: E[x | z, y] = \hat x + r^2 \nabla_z \log p(y | z), \qquad \hat x = E[x | z], \qquad z = x + r \epsilon

The methods differ in their approximation of :math:`p(y | z)`:

=================  ==============================================  ==================================================
method             covariance of H(x) given z                      exact for Gaussian priors
=================  ==============================================  ==================================================
``sda``            measured, scalar, bounded, or of the prior      with the covariance of the prior
``mmps``           the network's Jacobian, a few Krylov steps      with enough steps
``jacobian_free``  of the prior, measured, or independent          with the covariance of the prior
``dmps``           r^2 H H^T around z itself (linear H)            where the prior is uninformative
``soad``           measured or bounded; H selects state variables  as ``sda``, without its corrector
``dps``            none: steps of a given length                   no
=================  ==============================================  ==================================================
"""
