r"""The uncertainty of the observed quantities given z, one description a file.

:math:`z = x + r \epsilon` is the diffused state x at the noise level r, with standard normal :math:`\epsilon`.
"""
