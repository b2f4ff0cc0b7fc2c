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

from statfed.core.card import Card, Question
from statfed.core.scenario import About, Case

ABOUT = About(
    title="Regression across two registers of the same persons",
    purpose="How income goes with health, when taxes and diagnoses lie in registers that may not be joined",
    parties="two registers, a tax office and a health register; a dealer or third compute node for some protocols",
    data="different variables of the same persons by a common person number; 10,000 records and 10 columns measured",
    partitioning="vertical",
    protections=(),
    source=(
        "a case of vertical partitioning that many offices have, from no single pilot; X'X of 10,000 x 10 on shares in "
        "0.18 s and a logistic regression in 1 s measured with SPU 0.9.5"
    ),
    gsbpm="5.1 Integrate data",
    roles={
        "input parties": "a tax office (income, work) and a health register (diagnoses, hospital stays)",
        "computing party": "two or three compute nodes that each hold one share of every number",
        "result parties": "the analysts who asked, with coefficients and standard errors",
    },
    case=Case(
        title="Regression across two registers of the same persons",
        output="statistics",
        partitioning="vertical",
        parties=2,
        exact=True,
        sensitivity="high",
        recurrence="yearly",
        identifier="common",
        records=10_000,
        numbers=121,
        skills="advanced",
    ),
    card=Card(
        (
            Question(
                "legal basis",
                "May health and tax data be processed together at all, if nobody sees them together?",
                "the paragraphs for both registers, and the opinion of the ethics committee",
                "special categories of personal data in most laws",
            ),
            Question(
                "joint control",
                "Who answers to a person that asks what was done with its record in both registers?",
                "the arrangement between the registers, with the contact point",
            ),
            Question(
                "trust",
                "Who runs the compute nodes, and how many of them would have to pool shares to see a record?",
                "the operators' contracts, and the threshold of the protocol",
            ),
            Question(
                "safe outputs",
                "Which coefficients may be released, and how often may nearly the same regression be asked?",
                "the rule on residual degrees of freedom, and the log of questions",
            ),
            Question(
                "safe data",
                "What do both registers learn of who is in the other one?",
                "the rows of who learns what: sizes only, the intersection's size, or who matched",
            ),
        )
    ),
)
