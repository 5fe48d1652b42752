"""The labelling steps, one file each, in the order in which a row passes them:

    collect -> check -> annotate -> select -> ground -> segment -> weigh -> intervene

Each fills its own columns of the row and leaves the others alone, so any of them can be run by itself on rows made elsewhere.
"""

from pipelines.building.steps.annotate import Annotate
from pipelines.building.steps.base import Rejection, Step
from pipelines.building.steps.check import Check
from pipelines.building.steps.collect import Collect
from pipelines.building.steps.ground import Ground
from pipelines.building.steps.intervene import Intervene
from pipelines.building.steps.segment import DrawMasks
from pipelines.building.steps.select import Select
from pipelines.building.steps.weigh import Weigh

__all__ = ["Annotate", "Check", "Collect", "DrawMasks", "Ground", "Intervene", "Rejection", "Select", "Step", "Weigh"]
