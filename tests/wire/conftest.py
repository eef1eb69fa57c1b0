"""What the tests share: one server over the world, expected values, and servers of their own for the tests that write or stop."""

import shutil

import pytest

import world
from server import Server


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The world's warehouse, with no process on it, and the values to expect."""
    folder = tmp_path_factory.mktemp("world")
    world.create(folder / "warehouse", folder)
    expected = world.Expected(folder / "warehouse", folder)
    world.check_by_hand(expected)
    return folder, expected


@pytest.fixture(scope="session")
def expected(made):
    return made[1]


@pytest.fixture(scope="session")
def copy(made, tmp_path_factory):
    """Gives fresh copies of the world's warehouse."""

    def fresh():
        path = tmp_path_factory.mktemp("copy") / "warehouse"
        shutil.copytree(made[0] / "warehouse", path)
        return path

    return fresh


@pytest.fixture(scope="session")
def server(copy, tmp_path_factory):
    """One server for all tests that only read the world, and create what is theirs."""
    with Server(copy(), tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def own(copy, tmp_path):
    """A server of the test's own over the world."""
    with Server(copy(), tmp_path) as started:
        yield started


@pytest.fixture
def empty(tmp_path):
    """A server of the test's own over an empty warehouse."""
    with Server(tmp_path / "warehouse", tmp_path) as started:
        yield started


@pytest.fixture
def db(server):
    with server.adbc() as connection:
        yield connection


@pytest.fixture
def flight(server):
    with server.flight() as client:
        yield client


@pytest.fixture
def rpc(server):
    with server.rpc() as client:
        yield client
