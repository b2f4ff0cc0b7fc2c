"""Which technique suits a case: rules over its facts, and what was measured in the nearest reference scenarios."""

from statfed.lab.recommend.answer import Answer
from statfed.lab.recommend.decide import recommend
from statfed.lab.recommend.evidence import Measurements

__all__ = ["Answer", "Measurements", "recommend"]
