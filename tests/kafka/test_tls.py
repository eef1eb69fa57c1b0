"""A broker that wants TLS and a password: the connector's security settings are passed through, and what is wrong with them is told."""

import subprocess

import pytest
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

import dialect
from broker import SECONDS, Broker, until
from world import Flow, World, quoted

USER, PASSWORD = "asof", "a password"


def certificate(folder, name):
    """A certificate of 127.0.0.1 that vouches for itself: a keystore for the broker, and the PEM that a client trusts."""
    keystore, pem = folder / f"{name}.p12", folder / f"{name}.pem"
    store = ["-keystore", keystore, "-storepass", "changeit", "-alias", "broker"]
    for command in (
        ["-genkeypair", *store, "-storetype", "PKCS12", "-keyalg", "RSA", "-dname", f"CN={name}", "-ext", "SAN=ip:127.0.0.1", "-ext", "bc:c"],
        ["-exportcert", *store, "-rfc", "-file", pem],
    ):
        subprocess.run(["keytool", *command], check=True, capture_output=True, timeout=SECONDS)
    return keystore, pem


@pytest.fixture
def guarded(tmp_path):
    """A broker with a second listener, which wants TLS and the user's password; and the file with the certificate to trust."""
    keystore, pem = certificate(tmp_path, "broker")
    broker = Broker(tmp_path / "kafka", keystore=keystore)
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    asked = broker.admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, credentials, PASSWORD.encode())])
    asked[USER].result(SECONDS)
    yield broker, pem
    broker.down()


def secured(broker, pem):
    return {
        dialect.BROKERS: broker.tls_address,
        dialect.PASSED + "security.protocol": "sasl_ssl",
        dialect.PASSED + "ssl.ca.location": str(pem),
        dialect.PASSED + "sasl.mechanism": "SCRAM-SHA-512",
        dialect.PASSED + "sasl.username": USER,
        dialect.PASSED + "sasl.password": "env:KAFKA_PASSWORD",
    }


def test_through_tls(guarded, topics, servers, tmp_path):
    """Read through TLS, over a crash of the server and a restart of the broker; the password is nowhere in the warehouse."""
    broker, pem = guarded
    world = World(topics(broker, 2), tmp_path / "warehouse")
    flow = Flow(91, partitions=2)
    with servers(world.warehouse, env={"KAFKA_PASSWORD": PASSWORD}) as server:
        world.create(server, **secured(broker, pem))
        world.topic.produce(flow.take(300))
        world.caught_up(server)
        world.topic.send(flow.take(300))
        server.kill()
    server = servers(world.warehouse, env={"KAFKA_PASSWORD": PASSWORD})
    broker.restart()
    world.topic.produce(flow.take(100))
    world.caught_up(server)
    world.check(server)
    assert PASSWORD not in server.log
    for file in world.warehouse.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("wrong, said", [("password", "uthentication"), ("authority", "certificate")])
def test_what_is_wrong_is_told(guarded, topics, servers, tmp_path, wrong, said):
    """The stream reads nothing and says why; with the settings put right it goes on from the first record."""
    broker, pem = guarded
    _, stranger = certificate(tmp_path, "stranger")
    held = tmp_path / "password"
    held.write_text("another" if wrong == "password" else PASSWORD)
    world = World(topics(broker), tmp_path / "warehouse")
    world.topic.produce(Flow(92).take(50))
    server = servers(world.warehouse)
    options = {**secured(broker, stranger if wrong == "authority" else pem), dialect.PASSED + "sasl.password": f"file:{held}"}
    world.create(server, **options)
    until(
        lambda: any(said in str(r["message"]) for r in server.status(world.name).values()),
        lambda: f"the reason: {server.status(world.name)}\n{server.log}",
    )
    assert world.offsets() == {}
    held.write_text(PASSWORD)
    server.run(f"ALTER STREAM {world.name} SET (\"{dialect.PASSED}ssl.ca.location\" = {quoted(str(pem))})")
    world.caught_up(server)
    world.check(server)
