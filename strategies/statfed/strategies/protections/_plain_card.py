"""What `plain` asks of an organisation: the coordinator sees every contribution, so much rests on agreements."""

from statfed.core.card import Question, by_topic
from statfed.strategies.protections._cards import EVERYWHERE, REVIEW

CARD = by_topic(
    *EVERYWHERE,
    Question(
        "trust",
        "By what agreement is the coordinator trusted with each holder's contribution?",
        "an undertaking of confidentiality, with sanctions, of the organisation that coordinates",
        "without noise at the holder the coordinator sees exact sums or model updates of each holder; training records "
        "can be reconstructed from updates (Zhu et al. 2019)",
    ),
    Question(
        "trust",
        "What would show a holder that sends wrong values?",
        "limits of plausibility for single contributions, or the robust strategy that is used in training",
        "the coordinator can look at each contribution; robust strategies (median, Krum, ...) need that",
    ),
    Question(
        "key custody",
        "Who holds the keys of the channel, and how are they renewed and withdrawn?",
        "the list of registered node keys and TLS certificates, with owners and dates",
        "there are no keys besides the channel's: this technique pins no identities",
    ),
    Question(
        "impact assessment",
        "Do single contributions, such as a small holder's cell counts, say something about persons or enterprises to "
        "the coordinator?",
        "the rows of who learns what, and the holders' rules that passed in each sum",
        "exact contributions to a statistic have passed the holder's own rules, as far as its policy sets any, model "
        "updates none; with local noise the coordinator's view is covered by epsilon",
    ),
    Question(
        "joint control",
        "Does the coordinator, which receives contributions, act on the holders' behalf or decide together with them?",
        "the contract or arrangement between the holders and the coordinator",
        "the coordinator words the question; each holder's policy decides whether it is answered",
    ),
    Question(
        "transfers",
        "Does a contribution cross a border on its way to the coordinator, and on what ground?",
        "the places of holders, coordinator and its hosting, and the ground for each crossing",
        "contributions are readable at the coordinator; TLS hides them from others on the way",
    ),
    Question(
        "safe settings",
        "On which machine does the coordinator process contributions, and who can reach it?",
        "a description of the coordinator's environment, its administrators and its logs",
        "nothing listens at a holder but a loopback port for its own runner: holders open the connections",
    ),
    Question(
        "skills",
        "Who at each party installs the package, writes codebook and policy, and reads a refusal?",
        "names, and a rehearsal with the engine processes",
        "there is no cryptography to set up beyond the channel's certificates",
    ),
    Question(
        "maturity",
        "What evidence do the parties want that the software does what it says?",
        "test results, a review of the code, the pinned versions that were tested",
        f"the baseline of every comparison: floating-point sums over Flower's transport; {REVIEW}",
    ),
    Question(
        "recurring cost",
        "What does each repetition take in staff and machine time, and who pays?",
        "times and bytes of this run, and an estimate of staff days",
        "costs of other techniques are multiples of this one's; every holder has to answer every sum",
    ),
    Question(
        "auditability",
        "How would the holders find out that contributions were used for something else?",
        "logs and audits of the coordinator's environment",
        "nothing in the protocol would show it",
    ),
    Question(
        "revocation",
        "When does the coordinator delete contributions, and how is that shown?",
        "a retention rule, and a record of deletion",
        "result.json of a run holds no single contribution; what else a coordinator keeps is not in the software's "
        "hands",
    ),
)
