"""What papers change of GRPO, one file each. Adding one touches its file, and its line here.

PAPERS["papo"]      the class
RECIPES["papo"]     the paper's values, for --recipe papo
METHODS["papo"]     the class, of those that change the maths, for --methods papo; its fields
                    are the flags --papo.FIELD
"""

from __future__ import annotations

from train.methods.base import Method, changes_maths
from train.methods.cgpo import CGPO
from train.methods.dyco_rl import DyCoRL
from train.methods.ease import EASE
from train.methods.entropy_bonus import EntropyBonus
from train.methods.evidence_rl import EvidenceRL
from train.methods.faithful_mr1 import FaithfulMR1
from train.methods.gdpo import GDPO
from train.methods.grpo import GRPO
from train.methods.look import Look
from train.methods.noisyrollout import NoisyRollout
from train.methods.othink_mr1 import OThinkMR1
from train.methods.papo import PAPO
from train.methods.pepo import PEPO
from train.methods.perception_r1 import PerceptionR1
from train.methods.pgpo import PGPO
from train.methods.sayo import SAYO
from train.methods.srpo import SRPO
from train.methods.top_entropy import TopEntropy
from train.methods.tor import ToR
from train.methods.vapo import VAPO
from train.methods.vgpo import VGPO
from train.methods.visionary_r1 import VisionaryR1
from train.methods.vlm_r1 import VLMR1
from train.methods.vppo import VPPO

PAPERS: dict[str, type[Method]] = {
    paper.name: paper
    for paper in (
        GRPO,
        SAYO,
        PerceptionR1,
        FaithfulMR1,
        VGPO,
        PAPO,
        VPPO,
        ToR,
        PGPO,
        NoisyRollout,
        EvidenceRL,
        CGPO,
        PEPO,
        EASE,
        DyCoRL,
        VisionaryR1,
        VAPO,
        SRPO,
        VLMR1,
        OThinkMR1,
        GDPO,
        TopEntropy,
        EntropyBonus,
        Look,
    )
}
RECIPES = {name: paper.recipe for name, paper in PAPERS.items()}
METHODS = {name: paper for name, paper in PAPERS.items() if changes_maths(paper)}


def field_of(name: str) -> str:
    """The name of a method's settings among those of a run: in_doubt of in-doubt."""
    return name.replace("-", "_")
