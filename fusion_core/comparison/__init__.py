"""Does fusing help? What sources could teach, what came of it, and whether that is more than luck.

Rooms, each of which may import those above it:

    forecasting  what each source knows of a text that the target does not, before any training
    verdict      a paired test over seeds and documents -> better, no gain, undecided
    plan         the methods that are compared, and the settings of their trainings
    texts        documents to train on, to choose by and to measure on
    work         what worker processes do, each piece kept as it is finished
    summary      figures and verdicts, as plain data, Markdown and a figure
    run          all of it in order, resumed wherever it was interrupted
"""

from .forecasting import Forecast, SourceForecast, forecast, stream_forecast
from .plan import ComparisonConfig
from .run import compare
from .summary import markdown
from .verdict import Verdict, judge

__all__ = [
    "ComparisonConfig",
    "Forecast",
    "SourceForecast",
    "Verdict",
    "compare",
    "forecast",
    "judge",
    "markdown",
    "stream_forecast",
]
