"""Tasks: what is learned from a dataset and how it is judged."""

from .base import Forward, Task, Views
from .choice import task_for
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
    "task_for",
]
