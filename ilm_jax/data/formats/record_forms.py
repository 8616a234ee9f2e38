"""What the records of a published corpus hold, as data: which field is what, and how it is written.

A form names fields by their path: "price", "details.Brand" (of an object in the record), or
"popular_shelves.name" (of every object in a list). `record_reading` reads records by it.
"""

import dataclasses
from typing import Literal

# Seconds or milliseconds since 1970; 2017-12-17 or 2018-07-07 22:09:11 (taken as UTC);
# Tue Nov 17 11:37:35 -0800 2009.
TimeForm = Literal["seconds", "milliseconds", "date", "ctime"]
Named = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class InteractionForm:
    """Of every interaction who chose what and when.

    Attributes:
      user, item, time, rating: fields; rating "" where there is none.
      time_form: how times are written.
      highest: ratings go from 0 to this.
      unrated: the rating that says that there is none.
      display_names: users are known by names that they gave themselves: white space and what cannot
        be printed is percent-encoded, an empty one is nobody's and is left out, counted.
      headers: what the first line may be where the file is CSV.
    """

    user: str
    item: str
    time: str
    time_form: TimeForm
    rating: str = ""
    highest: float = 5.0
    unrated: float | None = None
    display_names: bool = False
    headers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ItemForm:
    """What there was to choose.

    Attributes:
      id: field of the id.
      title: the first of these that is there; the id where none is.
      text: what is there of these, one after the other.
      categories: the first of these that is there.
      attributes: (name, the first of these fields that is there).
      separator: between categories where they stand in one text.
      whole: categories that hold the separator.
      left_out: categories that say nothing of the item.
      most: so many categories at most; 0 for all.
      may_lack_id: records without an id are left out and counted, not refused.
    """

    id: str
    title: tuple[str, ...]
    text: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attributes: tuple[Named, ...] = ()
    separator: str = ""
    whole: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    most: int = 0
    may_lack_id: bool = False
