"""What `multi-party` asks of organisations: three of them that run compute nodes and will not collude."""

from statfed.core.card import Question, by_topic
from statfed.strategies.protections._cards import DIFFERENCES, EVERYWHERE, HONEST_VALUES, PINS, REVIEW

CARD = by_topic(
    *EVERYWHERE,
    *PINS,
    HONEST_VALUES,
    DIFFERENCES,
    Question(
        "roles",
        "Which three organisations run the compute nodes, and what makes them independent of each other?",
        "their statutes or contracts, owners, administrators and hosting",
        "nodes hold no data; each has a home and an identity key of its own; nodes in one organisation or under one "
        "administrator protect nothing",
    ),
    Question(
        "trust",
        "What keeps the compute nodes from pooling their shares?",
        "separate administration, contract and sanctions; each holder's allow.third_parties",
        "a contribution to a sum takes all three nodes to open; one to a function takes two, and there all nodes have "
        "to follow the protocol",
    ),
    Question(
        "trust",
        "What would show that a node made a result wrong?",
        "a repetition, a plausibility check, an audit of the nodes' software",
        "nodes that deviate can make a result wrong; in a sum they do not learn more by it",
    ),
    Question(
        "key custody",
        "Where do the nodes keep shares and keys while a run lasts, and who could copy them?",
        "a description of each node's environment, with persons who have access",
        "shares are sealed to each node by X25519 and AES-256-GCM; the nodes' TLS keys are made in each run and never "
        "leave their process; both halves of an exchange are forgotten with the run",
    ),
    Question(
        "impact assessment",
        "How do the parties class a share in the hands of one node?",
        "the assessment of each party, with docs/multi-party.md (the arguments)",
        "of the three shares of a sum any two, and of those of a function any one, are independent of the "
        "contribution, for sums computationally (AES)",
    ),
    Question(
        "impact assessment",
        "If functions are used, what does a maximum, a median or a verdict on dominance say about one holder or "
        "enterprise?",
        "the functions that the study lists, and the rows of who learns what",
        "a maximum, or a median of an odd number, is some holder's figure; a verdict opens one boolean a row",
    ),
    Question(
        "joint control",
        "In what capacity do the organisations of the nodes act, given that they compute on shares?",
        "the contract or arrangement between the holders, the coordinator and the nodes",
        "a node learns who takes part, and the layout and function of each task; no contribution and no result",
    ),
    Question(
        "transfers",
        "Under which jurisdictions are the nodes, and which authority could order two or three of them to tell?",
        "the places of holders, coordinator and nodes, and the opinions obtained",
        "sealed shares travel through the coordinator; for functions nodes talk to each other over mutual TLS",
    ),
    Question(
        "safe settings",
        "At which addresses do the nodes listen, and who can reach them?",
        "the study's option addresses, firewall rules, a description of each node's environment",
        "nodes accept exactly the certificates that the pinned identities have signed; a simulation runs all three on "
        "one machine",
    ),
    Question(
        "safe outputs",
        "If dominance is decided on pooled cells, who knows the parameters, and is each enterprise with one holder?",
        "the study's rules, and the declaration nested_enterprises where it is made",
        "holders, nodes and coordinator know the parameters; by default the verdict takes the safe side for "
        "enterprises at several holders; the coordinator sees the sums of all rows, also of those that are hidden",
    ),
    Question(
        "skills",
        "Who runs each node, and who can read which functions a study forms and what they open?",
        "names, and a rehearsal in which one node is stopped",
        "all three nodes are needed for every task; holders may drop out down to the agreed minimum",
    ),
    Question(
        "maturity",
        "What evidence do the parties want that the protocols and their library hold?",
        "the tests of attacks, the version of MPyC, a review by cryptographers",
        "sums are own code; functions run on MPyC, of which connections, pickles and the zero test are replaced; "
        f"{REVIEW}",
    ),
    Question(
        "recurring cost",
        "Who pays for three nodes and for the machine time of each repetition?",
        "times and bytes of this run, an estimate of staff days, offers of the nodes' organisations",
        "tens of times the processor time of a plain sum, and three shares to carry; functions far more: some "
        "milliseconds a comparison at each node, and seconds to start",
    ),
    Question(
        "auditability",
        "How can an auditor see which tasks the nodes did, and over which holders?",
        "party.toml of each node, and the logs of its environment",
        "the three nodes sign one list of holders a task, and each refuses fewer than the agreed minimum; the signed "
        "lists are not kept",
    ),
)
