"""Where bytes lie: a folder of a file system, or a prefix of an object store. Whole objects, written once."""

from .base import Entry as Entry
from .base import Storage as Storage
from .base import absolute_url as absolute_url
from .base import storage_at as storage_at
from .local import LocalStorage as LocalStorage
