"""Entry `set-intersection`: which units two offices have in common, and tables of variables that neither may hand over.

The pilot of Istat and the Bank of Italy. There is no protocol for it here yet: the module describes the case, and the
comparison reports it as not built. What the protocol has to do:

- match units by a common identifier without showing either party the identifiers that are not in both files;
- keep from both holders which of their units matched, unless the agreement says otherwise; sizes stay the least leak;
- give group-by counts and sums over the intersection (one party's categories by the other's), and nothing per unit;
- apply a minimum count to every released cell, cap the sizes of both sets, and log each run at both parties, since a
  set made up for the purpose asks whether single units are there;
- authenticate both ends and encrypt what travels, with keys from a certified source of randomness.

A pilot by RSA blinding with a linker that both trust has shown the analytics to be feasible; its prototype sent block
cipher output without chaining under a key from MD5 over plain HTTP, drew its secrets from an ordinary random generator,
showed the intersection to the holders and had no minimum count.
"""

from statfed.core.scenario import read_about

ABOUT = read_about(__file__)
