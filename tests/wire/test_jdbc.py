"""The Arrow Flight SQL JDBC driver: `Jdbc.java`, each of whose checks is a test here."""

import os
import re
import subprocess

import pytest

import world
from server import Server

CHECKS = [
    "statement",
    "prepared",
    "types",
    "ddl_and_update",
    "prepared_update",
    "error_text",
    "prepared_error_text",
    "tables",
    "columns",
    "primary_keys",
    "catalogs_and_schemas",
    "product",
]
HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def outcomes(copy, tmp_path_factory, expected):
    """What each check of the one run came to."""
    folder = tmp_path_factory.mktemp("jdbc")
    lines = []
    for at in (world.LATE, world.EARLY):
        for user in world.KEYS["user_id"][:20]:
            count, sum_, merchant = expected.row("user_spend", [user], at, features=["count_ever", "spend_1h", "last_merchant"])
            sum_bits = "NULL" if sum_ is None else sum_[1][::-1].hex()
            lines.append("\t".join([at.strftime("%Y-%m-%d %H:%M:%S"), user, str(count), sum_bits, merchant or "NULL"]))
    (folder / "expected.tsv").write_text("\n".join(lines) + "\n")
    with Server(copy(), folder) as started:
        done = subprocess.run(
            [
                "java",
                "--add-opens=java.base/java.nio=ALL-UNNAMED",
                "-Duser.timezone=UTC",
                "-cp",
                os.environ["ASOF_JDBC"],
                os.path.join(HERE, "Jdbc.java"),
                f"jdbc:arrow-flight-sql://{started.address}?useEncryption=false",
                str(folder / "expected.tsv"),
            ],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    return {name: (word, why) for word, name, why in re.findall(r"^(passed|failed) (\w+)(.*)$", done.stdout, re.M)}


@pytest.mark.parametrize("name", CHECKS)
def test_jdbc(outcomes, name):
    assert outcomes.get(name, ("not run", ""))[0] == "passed", outcomes.get(name, "not run")


def test_every_check_is_named(outcomes):
    assert sorted(outcomes) == sorted(CHECKS)
