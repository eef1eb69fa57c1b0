"""Serves features to a Python program in one round trip: by a ticket, and by a session for many requests.

    serve.py grpc://127.0.0.1:8815 ann bob cy

Needs pyarrow. The server is asked for the view `user_spend` of `examples/quickstart.sql`.
"""

import json
import sys

import pyarrow as pa
import pyarrow.flight as flight

AS_OF = "2024-05-01T11:45:00Z"


def by_ticket(client, view, users):
    """One request, one answer: the ticket says all that the server needs, so that there is nothing to ask for beforehand."""
    ticket = {"v": 1, "views": [view], "keys": {"user_id": users}, "as_of": AS_OF}
    return client.do_get(flight.Ticket(json.dumps(ticket).encode())).read_all()


class Session:
    """A DoExchange session: the view is named once, then each batch of keys gives one batch of features, in the order sent."""

    def __init__(self, client, view, features):
        request = {"v": 1, "views": [view], "features": features, "as_of": AS_OF}
        self.keys = pa.schema([("user_id", pa.string())])
        self.writer, self.reader = client.do_exchange(flight.FlightDescriptor.for_command(json.dumps(request).encode()))
        self.writer.begin(self.keys)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.writer.close()

    def send(self, users):
        """Sends without waiting; several requests may be under way."""
        self.writer.write_batch(pa.record_batch([users], schema=self.keys))

    def receive(self):
        """The answer to the oldest request under way."""
        return self.reader.read_chunk().data

    def finish(self):
        """No more requests; what is under way is still answered."""
        self.writer.done_writing()


def main():
    address, *users = sys.argv[1:]
    with flight.FlightClient(address) as client:
        print("by ticket")
        for row in by_ticket(client, "user_spend", users).to_pylist():
            print(" ", row)
        print("by session")
        with Session(client, "user_spend", ["spend_1h", "payments_1h"]) as session:
            for user in users:
                session.send([user])
            session.finish()
            for user in users:
                print(" ", user, session.receive().to_pylist()[0])


if __name__ == "__main__":
    main()
