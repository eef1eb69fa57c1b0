"""Delta tables read without the engine: the log's commits replayed, the files that are left read, on disk or on S3.

Our tables have neither deletion vectors nor column mapping, and keep all of their log; what is read once is kept, as it never changes.
"""

import json
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq


class Table:
    def __init__(self, files, path):
        self.fs, self.path = files, path
        self.commits = []
        self.read = {}

    def refresh(self):
        """Reads the commits that came since, and gives the table."""
        while True:
            try:
                with self.fs.open_input_stream(f"{self.path}/_delta_log/{len(self.commits):020}.json") as file:
                    self.commits.append([json.loads(line) for line in file.read().splitlines()])
            except (FileNotFoundError, OSError):
                return self

    @property
    def version(self):
        return len(self.commits) - 1

    def actions(self, kind):
        return [action[kind] for commit in self.commits for action in commit if kind in action]

    def transactions(self):
        """The last version of each application transaction."""
        return {t["appId"]: t["version"] for t in self.actions("txn")}

    def rows(self):
        """All rows, as dictionaries without the partition columns; times are microseconds."""
        live = {}
        for commit in self.commits:
            live.update({a["add"]["path"]: a["add"] for a in commit if "add" in a})
            for action in commit:
                if "remove" in action:
                    live.pop(action["remove"]["path"], None)
        for path, add in live.items():
            assert not add.get("deletionVector"), path
            if path not in self.read:
                self.read[path] = plain(pq.ParquetFile(self.fs.open_input_file(f"{self.path}/{unquote(path)}")).read())
        return [row for path in live for row in self.read[path]]


def plain(table):
    """Rows as dictionaries, times as integers."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
        columns[name] = column.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def local():
    return fs.LocalFileSystem()
