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

from statfed.core.card import Card, Question
from statfed.core.scenario import About, Case

ABOUT = About(
    title="Set intersection with analytics",
    purpose="Tables over the units that two registers share, by variables of both, without showing who is in them",
    parties="two: a statistical office and a central bank; a linker as third party where both agree on one",
    data="two files with a common identifier of persons or enterprises; 1,000 and 3,500 rows in the pilot",
    partitioning="linkage",
    protections=(),
    source=(
        "UNECE HLG-MOS Input Privacy Preservation project, pilot of Istat and the Bank of Italy (private set "
        "intersection by RSA blinding, files of 1,000 and 3,500 rows)"
    ),
    gsbpm="5.1 Integrate data",
    roles={
        "input parties": "Istat and the Bank of Italy, each with its own register",
        "computing party": "a linker that sees blinded identifiers and encrypted variables, or the two parties alone",
        "result parties": "the analysts of both institutions, who get tables and no units",
    },
    case=Case(
        title="Set intersection with analytics",
        output="linkage",
        partitioning="linkage",
        parties=2,
        third_party=True,
        exact=True,
        sensitivity="high",
        recurrence="once",
        identifier="common",
        records=3_500,
        numbers=50,
        skills="advanced",
    ),
    card=Card(
        (
            Question(
                "roles",
                "Who is the linker, and what would it learn together with one of the two parties?",
                "the contract of the linker, and the table of who learns what with and without collusion",
                "with two parties a total less one's own part is the other's",
            ),
            Question(
                "legal basis",
                "Does the law that governs each register allow it to be matched with the other's, for this purpose?",
                "the paragraphs for both institutions, and the opinion of both data protection officers",
            ),
            Question(
                "safe outputs",
                "What is the smallest count that is released, and may either party know which of its units matched?",
                "the rule in the agreement and in the release, and the rows of who learns what",
                "the pilot had no minimum count, and showed the intersection to the holders",
            ),
            Question(
                "auditability",
                "How would a party notice that the other asks with a set made up to find single units?",
                "caps on set sizes, the log of runs at both parties, and the rate limit",
            ),
            Question(
                "key custody",
                "Who generates and destroys the blinding keys, from which source of randomness?",
                "the key ceremony's record, for every run",
                "the pilot's prototype drew them from a generator that is not made for it",
            ),
            Question(
                "impact assessment",
                "Is being in both registers itself sensitive, as with debtors and receivers of benefits?",
                "the section on inference in the assessment of both parties",
            ),
        )
    ),
)
