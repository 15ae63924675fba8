#!/usr/bin/env python3
"""A client for raftkv, written from wire-protocol.md alone; only Python's standard library.

    python3 docs/client.py 127.0.0.1:6000,127.0.0.1:6001,127.0.0.1:6002 put a 1
    python3 docs/client.py 127.0.0.1:6000 get a          (also: del KEY, incr KEY N, putex KEY SECONDS VALUE)

It shows what every client needs: frames with a checksum, the hello, redirects to the leader, and a session, so that
a write that is retried after a lost answer is executed once. Exit status: 0 done, 1 the key does not exist,
2 the command line is wrong, or the cluster refused or could not be reached.
"""
import socket, struct, sys, time

MAGIC, VERSION = bytes.fromhex("d24b5601"), 2
HELLO, WELCOME, GET, WRITE, VALUE, WRITTEN, FAILED = 0x01, 0x02, 0x10, 0x11, 0x20, 0x21, 0x2F
OPEN_SESSION, PUT, DELETE, INCREMENT, SET_UNTIL, OF_SESSION, REFUSED = 0, 1, 2, 4, 10, 64, 255
PATIENCE_S, TIMEOUT_S, PAUSE_S = 20.0, 3.0, 0.2
REFUSALS = {1: "not an integer", 2: "overflow", 3: "unknown session", 4: "stale sequence"}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def blob(data):
    return struct.pack(">I", len(data)) + data


class Fatal(Exception):
    """Trying again would not help."""


class Retry(Exception):
    """This attempt failed; `leader` is an address to try next, if known."""
    leader = None


class Connection:
    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
        self.request_id = 0
        self.socket.sendall(MAGIC)
        self.send(struct.pack(">BHHQB", HELLO, VERSION, VERSION, 0, 2) + blob(b"client.py"))
        if self.receive(4) != MAGIC:
            raise Fatal(f"{address} is no node of raftkv")
        reply = self.receive_frame()
        if reply[0] != WELCOME:
            raise (Retry if reply[1] in (6, 7) else Fatal)(f"{address}: {reply[6:].decode()}")

    def send(self, payload):
        self.socket.sendall(struct.pack(">II", len(payload), crc32c(payload)) + payload)

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise Retry("the node closed the connection")
            data += more
        return data

    def receive_frame(self):
        size, checksum = struct.unpack(">II", self.receive(8))
        payload = self.receive(size)
        if crc32c(payload) != checksum:
            raise Retry("a damaged frame")
        return payload

    def ask(self, kind, body):
        """The type of the reply and what follows its request id."""
        self.request_id += 1
        self.send(struct.pack(">BQ", kind, self.request_id) + body)
        reply = self.receive_frame()
        if struct.unpack(">Q", reply[1:9])[0] != self.request_id:
            raise Retry("the reply to another request")
        if reply[0] == FAILED:
            raise failure(reply[9:])
        return reply[0], reply[9:]


def failure(body):
    code, size = struct.unpack(">BI", body[:5])
    message, rest = body[5:5 + size].decode(), body[5 + size:]
    if code in (3, 4):
        return Fatal(message)  # TooLarge, Malformed
    error = Retry(message)
    if rest[0]:
        error.leader = rest[13:].decode()
    return error


class Client:
    def __init__(self, addresses):
        self.addresses, self.turn, self.connection = addresses, 0, None
        self.session, self.sequence = 0, 0

    def ask(self, kind, body):
        """Tries until there is an answer. The body never changes, so a write keeps its session and sequence."""
        deadline, hint, problem = time.monotonic() + PATIENCE_S, None, None
        while time.monotonic() < deadline:
            try:
                if self.connection is None:
                    address = hint or self.addresses[self.turn % len(self.addresses)]
                    self.connection = Connection(address)
                return self.connection.ask(kind, body)
            except (Retry, OSError) as error:
                # A hint is followed at once; one that leads nowhere costs a pause and the next of our own list.
                problem, hint = error, None if hint else getattr(error, "leader", None)
                self.connection = None
                if hint is None:
                    self.turn += 1
                    time.sleep(PAUSE_S)
        raise Fatal(f"no answer in {PATIENCE_S:.0f} s: {problem}")

    def get(self, key):
        _, body = self.ask(GET, blob(key))
        return body[21:] if body[16] else None

    def write(self, command, key, rest=b"", stamp=b""):
        if not self.session:
            _, body = self.ask(WRITE, bytes([OPEN_SESSION]))
            self.session = struct.unpack(">Q", body[17:25])[0]
        self.sequence += 1
        head = struct.pack(">BQQ", command | OF_SESSION, self.session, self.sequence)
        _, body = self.ask(WRITE, head + stamp + blob(key) + rest)
        if body[16] == REFUSED:
            raise Fatal(f"refused: {REFUSALS.get(body[17], body[17])}")
        return body[17:]


ARGUMENTS = {"get": 1, "put": 2, "del": 1, "incr": 2, "putex": 3}


def main(addresses, verb, key, *values):
    client, key = Client(addresses.split(",")), key.encode()
    if verb == "get":
        value = client.get(key)
        if value is None:
            return 1
        print(value.decode(errors="replace"))
    elif verb == "put":
        client.write(PUT, key, blob(values[0].encode()))
    elif verb == "putex":
        try:
            after = struct.pack(">q", int(values[0]) * 1000)
        except (ValueError, struct.error):
            raise Fatal(f"'{values[0]}' is no whole number of seconds") from None
        # No condition, no value from before, after so many milliseconds; the leader writes the stamp.
        client.write(SET_UNTIL, key, b"\0\0\2" + after + blob(values[1].encode()), bytes(8))
    elif verb == "del":
        return 0 if client.write(DELETE, key)[0] else 1
    elif verb == "incr":
        try:
            delta = struct.pack(">q", int(values[0]))
        except (ValueError, struct.error):
            raise Fatal(f"'{values[0]}' is no whole 64-bit number") from None
        print(*struct.unpack(">q", client.write(INCREMENT, key, delta)))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or ARGUMENTS.get(sys.argv[2]) != len(sys.argv) - 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(main(*sys.argv[1:]))
    except Fatal as error:
        print(error, file=sys.stderr)
        sys.exit(2)
