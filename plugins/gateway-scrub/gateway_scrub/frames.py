"""Series and DataFrames of pandas, cell by cell. pandas is never imported here: who hands one over has done that."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

Change = Callable[[Any, str, str], Any]
"""Given a cell, its column's name and where it stands, gives what is to stand there; the same object if nothing changes."""


def is_frame(value: Any) -> bool:
    """Whether it is a Series or a DataFrame."""
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, (pandas.Series, pandas.DataFrame))


def mapped(value: Any, change: Change, *, narrow: bool = False) -> Any:
    """A copy with each cell changed, and the names and indices that are text or numbers, too.

    A column of numbers in which one becomes a text is one of objects; with `narrow` one of objects in which that came back
    becomes one of numbers.
    """
    pandas: Any = sys.modules["pandas"]
    if isinstance(value, pandas.Series):
        made = _series(value, change, str(value.name or ""), narrow)
        made = made.copy() if made is value else made
        made.index = _index(value.index, change)
        return made.rename(change(value.name, "", "name")) if isinstance(value.name, str) else made
    made = value.copy()
    for at in range(len(value.columns)):
        column = value.iloc[:, at]
        new = _series(column, change, str(value.columns[at]), narrow)
        if new is not column:
            made.isetitem(at, new)
    made.index = _index(value.index, change)
    made.columns = _index(value.columns, change)
    return made


def cells(value: Any) -> Iterator[Any]:
    """Every different cell of it, and of its index."""
    pandas: Any = sys.modules["pandas"]
    columns = [value] if isinstance(value, pandas.Series) else [value.iloc[:, at] for at in range(len(value.columns))]
    for column in columns:
        yield from dict.fromkeys(cell for cell in column.tolist() if isinstance(cell, (str, int, float)))
        yield from (cell for cell in column.tolist() if isinstance(cell, (dict, list, tuple)))
    yield from value.index.tolist()


def _series(series: Any, change: Change, label: str, narrow: bool) -> Any:
    pandas: Any = sys.modules["pandas"]
    if isinstance(series.dtype, pandas.CategoricalDtype):
        kinds = series.cat.categories
        new = _index(kinds, lambda cell, _, where: change(cell, label, where))
        if new is kinds:
            return series
        return series.cat.rename_categories(new) if new.is_unique else _series(series.astype(object), change, label, narrow)
    if series.dtype.kind in "bmM":  # truth values, dates, durations
        return series
    cells = series.tolist()
    known: dict[tuple[type, Any], Any] = {}
    made = [_once(known, cell, change, label) for cell in cells]
    if all(new is old for new, old in zip(made, cells, strict=True)):
        return series
    if all(isinstance(new, str) or new is old for new, old in zip(made, cells, strict=True)) and series.dtype.kind not in "iuf":
        return pandas.Series(made, index=series.index, name=series.name, dtype=series.dtype)
    out = pandas.Series(made, index=series.index, name=series.name, dtype=object)
    return out.infer_objects() if narrow and not any(isinstance(cell, str) for cell in made) else out


def _once(known: dict[tuple[type, Any], Any], cell: Any, change: Change, label: str) -> Any:
    """A column has the same cell again and again: it is looked at once."""
    if not isinstance(cell, (str, int, float)):
        return change(cell, label, label)
    key = type(cell), cell
    if key not in known:
        known[key] = change(cell, label, label)
    made = known[key]
    return cell if made == cell and type(made) is type(cell) else made


def _index(index: Any, change: Change) -> Any:
    pandas: Any = sys.modules["pandas"]
    if isinstance(index, pandas.RangeIndex) or index.dtype.kind in "bmM":
        return index
    label = index.name if isinstance(index.name, str) else ""
    old = index.tolist()
    made = [change(cell, label, "index") for cell in old]
    if all(new is cell for new, cell in zip(made, old, strict=True)):
        return index
    if isinstance(index, pandas.MultiIndex):
        return pandas.MultiIndex.from_tuples(made, names=index.names)
    return pandas.Index(made, name=index.name)
