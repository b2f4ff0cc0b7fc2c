"""Which technique suits a case: rules over its facts, and what was measured in the nearest reference scenarios."""

from statfed.scenarios._recommend.answer import Answer
from statfed.scenarios._recommend.decide import recommend
from statfed.scenarios._recommend.evidence import Measurements

__all__ = ["Answer", "Measurements", "recommend"]
