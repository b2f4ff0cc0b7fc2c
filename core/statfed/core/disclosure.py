"""Rules of statistical disclosure control: their parameters, and what they say of one cell.

The same rules are applied twice, by different parties: a holder to what leaves it in the clear, with thresholds that
are its secret; and the coordinator to a pooled release. A message about a rule names the rule, never its parameter.
Source: Hundepool et al. 2012, Statistical Disclosure Control, chapters 4 and 5.
"""

from typing import Literal

from pydantic import Field, field_serializer, field_validator

from statfed.core.section import Section

Method = Literal["suppress", "round", "random-round", "controlled-round", "cell-key"]
HolderRules = Literal["none", "standard", "strict"]
"""What simulated holders allow: everything, or what that template of a policy does."""
_SWITCHED = (
    "minimum_frequency",
    "dominance_k",
    "p_percent",
    "residual_df",
    "parameters_per_record",
    "joint_share",
    "rosters",
)


class Rules(Section):
    """Thresholds and the treatment of unsafe cells. None, in a file "off", switches a rule off."""

    minimum_frequency: int | None = Field(default=10, ge=1, description="fewest records behind a cell")
    dominance_n: int = Field(default=2, ge=1, description="(n,k) rule: the n largest contributors ...")
    dominance_k: float | None = Field(default=90.0, gt=0, le=100, description="... have at most k % of the cell")
    p_percent: float | None = Field(default=10.0, gt=0, description="p% rule: nobody can estimate another closer")
    zeros: Literal["allow", "protect"] = Field(default="allow", description="may an empty cell be shown as empty?")
    full_cells: Literal["allow", "protect"] = Field(
        default="allow", description="may all records of a row or column be seen to lie in one cell?"
    )
    residual_df: int | None = Field(default=10, ge=0, description="models: fewest residual degrees of freedom")
    parameters_per_record: float | None = Field(default=0.33, gt=0, description="models: most parameters per record")
    joint_share: float | None = Field(
        default=50.0,
        gt=0,
        le=100,
        description="at a holder: share, in %, of which one contributor has less in any combination of all exact "
        "figures that ever left; without weights it has at most 100 / minimum_frequency %; off: neither is asked",
    )
    method: Method = Field(default="suppress", description="what happens to unsafe cells")
    base: int = Field(default=5, ge=2, description="rounding base; largest absolute cell-key noise")
    rosters: int | None = Field(
        default=3, ge=1, description="releases: fewest holders by which two sums over holders may differ"
    )
    interval: float = Field(
        default=1.0, ge=0, description="audit: width of a suppressed cell's feasible interval, in units of the cell"
    )

    @property
    def silent(self) -> bool:
        """Is every rule switched off?"""
        numbers = (self.minimum_frequency, self.dominance_k, self.p_percent, self.residual_df)
        protected = "protect" in (self.zeros, self.full_cells)
        return not protected and all(n is None for n in (*numbers, self.parameters_per_record))

    @field_validator(*_SWITCHED, mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if value == "off" else value

    @field_serializer(*_SWITCHED, when_used="json")
    def _written(self, value: int | float | None) -> int | float | str:
        return "off" if value is None else value


OFF = Rules(
    minimum_frequency=None,
    dominance_k=None,
    p_percent=None,
    residual_df=None,
    parameters_per_record=None,
    joint_share=None,
    rosters=None,
)
