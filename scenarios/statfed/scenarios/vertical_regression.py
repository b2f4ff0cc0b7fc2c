"""Entry `vertical-regression`: a regression whose outcome lies in one register and whose regressors lie in another.

A tax office knows incomes, a health register knows diagnoses of the same persons; the question is how they go
together. There is no protocol for it here yet: the module describes the case, and the comparison reports it as not
built. What the protocol has to do:

- align the records of the same persons without telling either register who is in the other one (see the entry
  `set-intersection`): a secret intersection whose order both sides share, not a list of persons;
- compute X'X and X'y where columns of X lie apart: the diagonal blocks at home, the cross products by secure
  multiplication of secret-shared columns, for which sums over holders do not do;
- solve and release coefficients with standard errors, and no residuals or fitted values, which are per person;
- refuse regressions with too few persons, or in which one person decides a coefficient, and repeated regressions that
  differ by one person; with noise where the coefficients are asked for often.

As an order of magnitude, cross products of 10,000 records by 10 columns took 0.18 s and a logistic regression about 1 s
in a general framework for computing on shares, all parties on one machine.
"""

from statfed.core.scenario import read_about

ABOUT = read_about(__file__)
