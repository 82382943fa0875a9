"""Gradients of log-likelihoods from the statistics of an E-step, by Fisher's identity.

The derivative of the log-likelihood is that of the expected log-likelihood of the complete data (Fisher's identity; see
Louis, 1982, JRSS B 44, equation 3.1), which the M-step's statistics determine. Of models that have a module here,
second derivatives take 2 P E-steps, P being the number of coordinates; of others about P**2 log-likelihoods.

Each module has one function. It returns the derivatives (P,) of the log-likelihood of all rows at `params`, without
priors, in the coordinates of the model's `to_vector`, taken about `origin` where these depend on it.
"""
