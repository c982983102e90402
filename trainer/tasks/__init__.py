"""Tasks: what is learned from a dataset and how it is judged."""

from .base import Forward, Task, Views
from .choice import kind_of, task_for
from .classification import Classification, Emotion
from .retrieval import Retrieval
from .sentiment import SentimentClasses, SentimentRegression

__all__ = [
    "Classification",
    "Emotion",
    "Forward",
    "Retrieval",
    "SentimentClasses",
    "SentimentRegression",
    "Task",
    "Views",
    "kind_of",
    "task_for",
]
