"""What `homomorphic-encryption` asks of an organisation: an independent key holder, and much computing."""

from statfed.core.card import Question, by_topic
from statfed.strategies.protections._cards import DIFFERENCES, EVERYWHERE, HONEST_VALUES, PINS, REVIEW

CARD = by_topic(
    *EVERYWHERE,
    *PINS,
    HONEST_VALUES,
    DIFFERENCES,
    Question(
        "roles",
        "Which organisation is the key holder, and what makes it independent of the coordinator?",
        "its statutes or contract, owners, administrators and hosting",
        "the key holder holds no data and must not be a holder of the study; it makes the keys of each run and opens "
        "one sum a round",
    ),
    Question(
        "trust",
        "What keeps key holder and coordinator from pooling what they know?",
        "separate administration, contract and sanctions; each holder's allow.third_parties",
        "together the two learn every contribution; with scheme bfv the coordinator alone may do anything and gets one "
        "sum a round",
    ),
    Question(
        "trust",
        "If scheme ckks or option last_layer is used, who has accepted what it shows?",
        "the holders' policies that list homomorphic-encryption:scheme or homomorphic-encryption:last_layer",
        "ckks: the coordinator has to follow the protocol and the key holder sees totals; last_layer: all other "
        "entries of each update travel in clear, from which training records can be reconstructed",
    ),
    Question(
        "key custody",
        "Where do the key holder's secret keys lie while a run lasts, and who could copy them?",
        "a description of the key holder's environment, with persons who have access",
        "keys live for one run, one set for each width of sum; with scheme bfv a contribution has a pad besides, so "
        "that the secret key alone does not open it to the coordinator",
    ),
    Question(
        "impact assessment",
        "How do the parties class a ciphertext in the hands of the coordinator, given that another party has the key?",
        "the assessment of each party, with docs/homomorphic-encryption.md (why it holds)",
        "parameters are within the 128-bit limits of the HomomorphicEncryption.org standard of 2018",
    ),
    Question(
        "joint control",
        "In what capacity does the key holder act, given that it opens sums?",
        "the contract or arrangement between the holders, the coordinator and the key holder",
        "with scheme bfv what it decrypts is blinded: it learns sizes and who contributed; with ckks also the totals",
    ),
    Question(
        "transfers",
        "Are coordinator and key holder under different jurisdictions, and which authority could order both to tell?",
        "the places of holders, coordinator and key holder, and the opinions obtained",
        "ciphertexts go to the coordinator, and their sum to the key holder",
    ),
    Question(
        "safe settings",
        "On which machine does the key holder run, and who can reach it?",
        "a description of its environment, its administrators and its logs",
        "a home folder with party.toml and identity.key; party.toml lists the protections that it plays a part in and "
        "the fewest holders of a sum",
    ),
    Question(
        "skills",
        "Who can judge scheme and parameters, and who runs the key holder?",
        "names, and a rehearsal in which the key holder is stopped",
        "parameters are fixed in the code and tabulated in docs/homomorphic-encryption.md; the choice left is bfv or "
        "ckks",
    ),
    Question(
        "maturity",
        "What evidence do the parties want that the protocol and its libraries hold?",
        "the tests of attacks, versions of TenSEAL and Microsoft SEAL, a review by cryptographers",
        "BFV and CKKS of Microsoft SEAL through TenSEAL; pads, blinding, signatures and checks of ciphertexts are own "
        f"code; {REVIEW}",
    ),
    Question(
        "recurring cost",
        "Who pays for the key holder and for the machine time of each repetition?",
        "times and bytes of this run, an estimate of staff days, an offer of the key holder",
        "hundreds to thousands of times the processor time of a plain sum; under the same assumption of two parties "
        "that do not collude, masks alone take about a seventieth of the time",
    ),
    Question(
        "auditability",
        "How can an auditor see that the key holder opened each sum once, and over enough holders?",
        "party.toml of the key holder, and the logs of its environment",
        "the key holder answers a round once and refuses fewer holders than the agreed minimum; coordinator and key "
        "holder both check that minimum",
    ),
)
