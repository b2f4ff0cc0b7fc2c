"""Entry `trade-linkage`: totals of trade between two countries from records that are linked in spite of typing errors.

The pilot of Statistics Netherlands (CBS) and Statistics Canada. There is no protocol for it here yet: the module
describes the case, and the comparison reports it as not built. What the protocol has to do:

- encode quasi-identifiers (names, addresses, dates) so that near-equal ones can be compared by a linkage unit that sees
  nothing else, with a secret salt of the two offices, since encodings are open to frequency attacks;
- compare within blocks, and release the number of links per block and not the pairs;
- correct totals for errors of the linkage: with r = FPR / blockFPR and the recall known from a sample that both may
  compare in the clear, total = (links - r * block) / (recall - r), with its uncertainty, which the pilot did not give;
- refuse to release a total where recall and false positive rate are not known well enough.

In the pilot the correction brought 79,817 links to 100,010 where about 100,000 records were common (census pair), and
39,224 to 48,553 where about 49,000 were (70 % samples).
"""

from statfed.core.scenario import read_about

ABOUT = read_about(__file__)
