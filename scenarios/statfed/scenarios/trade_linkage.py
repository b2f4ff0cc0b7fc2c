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

from statfed.core.card import Card, Question
from statfed.core.scenario import About, Case

ABOUT = About(
    title="Linkage of trade records with errors in the keys",
    purpose="Numbers and values of transactions that both countries recorded, corrected for missed and false links",
    parties="two statistical offices, one of each country; a linkage unit where both agree on one",
    data="trade records with names, addresses and dates that carry typing errors; 100,000 records in the pilot",
    partitioning="linkage",
    protections=(),
    source=(
        "UNECE HLG-MOS Input Privacy Preservation project, pilot of Statistics Netherlands and Statistics Canada "
        "(100,000 records; adjusted totals 100,010 and 48,553 against 79,817 and 39,224 unadjusted)"
    ),
    gsbpm="5.1 Integrate data",
    roles={
        "input parties": "Statistics Netherlands and Statistics Canada, each with its side of the trade",
        "computing party": "a linkage unit that sees encoded keys and no variable",
        "result parties": "the trade statisticians of both offices, who reconcile the mirror figures",
    },
    case=Case(
        title="Linkage of trade records with errors in the keys",
        output="linkage",
        partitioning="linkage",
        parties=2,
        third_party=True,
        sensitivity="high",
        dominance=True,
        recurrence="yearly",
        identifier="noisy",
        records=100_000,
        numbers=100,
        latency=90.0,
        skills="advanced",
    ),
    card=Card(
        (
            Question(
                "transfers",
                "Is an encoded key personal or confidential data once it crosses the border, and under which law?",
                "the opinion of both offices' lawyers, and the transfer instrument",
                "encodings of names can be attacked by how frequent they are",
            ),
            Question(
                "trust",
                "Who runs the linkage unit, and what could it re-identify with one office's help?",
                "the results of a frequency attack on the encodings, at the salt and filter length in use",
            ),
            Question(
                "safe outputs",
                "Which totals are published where one enterprise makes most of a commodity's trade?",
                "the dominance rule of both offices for mirror figures, applied to the linked total",
            ),
            Question(
                "auditability",
                "On what sample are recall and false positive rate known, and who may see it in the clear?",
                "the sampling plan, its legal basis, and the uncertainty of the correction",
                "the correction divides by recall less r: close to zero it explodes",
            ),
            Question(
                "recurring cost",
                "What does it take to harmonise names and addresses every year before a single link is made?",
                "hours of preparation in the last round, by step",
            ),
        )
    ),
)
