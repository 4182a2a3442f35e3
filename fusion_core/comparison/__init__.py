"""Does fusing help? What sources could teach, what came of it, and whether that is more than luck.

Rooms, each of which may import those above it:

    forecasting  what each source knows of a text that the target does not, before any training
    verdict      a paired test over seeds and documents -> better, no gain, undecided
"""

from .forecasting import Forecast, SourceForecast, forecast, stream_forecast
from .verdict import Verdict, judge

__all__ = [
    "Forecast",
    "SourceForecast",
    "Verdict",
    "forecast",
    "judge",
    "stream_forecast",
]
