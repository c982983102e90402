"""Tasks: what is learned from a dataset and how it is judged."""

from .base import Forward, Task, Views
from .choice import kind_of, name_of, task_for
from .classification import Classification, Emotion
from .metric import Metric
from .retrieval import Retrieval
from .scores import Columns, Recomputed, SampleScores
from .sentiment import SentimentClasses, SentimentRegression

__all__ = [
    "Classification",
    "Columns",
    "Emotion",
    "Forward",
    "Metric",
    "Recomputed",
    "Retrieval",
    "SampleScores",
    "SentimentClasses",
    "SentimentRegression",
    "Task",
    "Views",
    "kind_of",
    "name_of",
    "task_for",
]
