"""The labelling steps, one file each, in the order in which a row passes them:

    collect -> check -> annotate -> select -> ground -> segment -> weigh -> intervene

Each fills its own columns of the row and leaves the others alone, so any of them can be run by itself on rows made elsewhere.
"""

from pipelines.steps.annotate import Annotate
from pipelines.steps.base import Rejection, Step
from pipelines.steps.check import Check
from pipelines.steps.collect import Collect
from pipelines.steps.ground import Ground
from pipelines.steps.intervene import Intervene
from pipelines.steps.segment import Draw
from pipelines.steps.select import Select
from pipelines.steps.weigh import Weigh

__all__ = ["Annotate", "Check", "Collect", "Draw", "Ground", "Intervene", "Rejection", "Select", "Step", "Weigh"]
