"""What a row of a dataset is, for everybody who reads one: builds, trainers, exports, and rewards inside other trainers.

row        DatasetRow: a row's columns, read
values     missing values, text, lists
choices    the options of a question            golds      its answers
chat       what is asked, and where images go   pictures   which images
regions    boxes and masks                      traces     what was written about it

Needs no torch, and opens no file.
"""

from rewardlib.rows.choices import Choices as Choices
from rewardlib.rows.row import DatasetRow as DatasetRow
from rewardlib.rows.values import RowError as RowError
