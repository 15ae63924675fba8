"""redis-py, which nobody of this project wrote, against a running cluster.

redis_py.py calls PORT                 its calls, one after the other
redis_py.py count PORT SECONDS         increments and prints: acknowledged, unknown, the counter at the end
redis_py.py sentinel PORTS LEADER      all nodes as sentinels: writes through the death of the leader, which is announced
                                       by "writing"; prints how many writes were acknowledged, and who leads at the end
"""

import sys
import time

import redis
from redis.sentinel import MasterNotFoundError, Sentinel


def calls(client):
    assert client.ping() is True
    assert client.set("k", "v") is True and client.get("k") == b"v"
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", xx=True, get=True) == b"v"
    assert client.mset({"a": 1, "b": 2}) is True
    assert client.mget("a", "none", "b") == [b"1", None, b"2"]
    assert client.incr("a") == 2 and client.decrby("a", 5) == -3
    assert client.append("k", "xyz") == 4 and client.strlen("k") == 4
    assert client.delete("a", "b", "none") == 2
    assert client.exists("k", "k") == 2 and client.type("k") == b"string"
    assert client.getdel("k") == b"wxyz" and client.getset("k", "1") is None
    assert client.setnx("k", "2") is False
    assert client.info("raft")["raft_role"] in ("leader", "follower")
    assert client.config_get("save") == {"save": ""}
    assert client.command_count() > 20 and "get" in client.command()
    pipe = client.pipeline(transaction=False)
    for _ in range(100):
        pipe.incr("pipe")
    assert pipe.execute() == list(range(1, 101))
    client.mset({f"scan:{number}": number for number in range(100)})
    keys = list(client.scan_iter("scan:*", count=7))
    assert len(keys) == len(set(keys)) == 100
    try:
        client.execute_command("NOSUCH", "a")
        raise AssertionError("there is no such command")
    except redis.ResponseError as error:
        expected = "unknown command 'NOSUCH', with args beginning with: 'a' "
        assert str(error) == expected, error


def count(client, seconds):
    client.set("n", 0)
    print("counting", flush=True)
    acknowledged = unknown = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            client.incr("n")
            acknowledged += 1
        except redis.exceptions.ResponseError as error:
            # CLUSTERDOWN and TRYAGAIN: certainly not done.
            unknown += str(error).startswith("INDETERMINATE")
    print(acknowledged, unknown, int(client.get("n")))


def sentinel(ports, leader):
    """Each library call finds the leader by itself; a value is counted when it is acknowledged."""
    nodes = [("127.0.0.1", port) for port in ports]
    sentinels = Sentinel(nodes, socket_timeout=1)
    for name in ("raftkv", "mymaster"):
        assert sentinels.discover_master(name) == ("127.0.0.1", leader), name
        others = {("127.0.0.1", port) for port in ports if port != leader}
        assert set(sentinels.discover_slaves(name)) == others, name
    try:
        sentinels.discover_master("other")
        raise AssertionError("there is no such master")
    except MasterNotFoundError:
        pass
    listener = redis.Redis(port=next(port for port in ports if port != leader)).pubsub()
    listener.psubscribe("*")
    assert listener.get_message(timeout=5)["type"] == "psubscribe"
    master = sentinels.master_for("mymaster", socket_timeout=1)
    replica = sentinels.slave_for("mymaster", socket_timeout=1)
    master.set("first", 1)
    assert master.role()[0] == b"master" and replica.role()[0] == b"slave"
    assert replica.get("first") == b"1"
    print("writing", flush=True)
    acknowledged = []
    switched = None
    stood_still = 0
    last = end = time.monotonic()
    while switched is None or len(acknowledged) < 200:
        assert time.monotonic() < end + 30, "no other leader was found"
        number = len(acknowledged)
        try:
            # Written twice it is the same, so that what is unknown may be repeated.
            master.set(f"key:{number}", number)
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            continue
        now = time.monotonic()
        stood_still, last = max(stood_still, now - last), now
        acknowledged.append(number)
        message = listener.get_message(timeout=0)
        if message and message["channel"] == b"+switch-master":
            words = message["data"].decode().split(" ")
            assert words[0] in ("raftkv", "mymaster"), words
            switched = words[1:]
    assert stood_still < 10, stood_still
    assert switched[:2] == ["127.0.0.1", str(leader)], switched
    new = sentinels.discover_master("mymaster")
    assert new[1] != leader and switched[2:] == ["127.0.0.1", str(new[1])], (switched, new)
    assert master.role()[0] == b"master"
    for number in acknowledged:
        for reader in (master, replica):
            assert reader.get(f"key:{number}") == str(number).encode(), number
    print(len(acknowledged), new[1])


if sys.argv[1] == "calls":
    for version in (2, 3):
        with redis.Redis(port=int(sys.argv[2]), protocol=version) as one:
            one.delete("k", "a", "b", "pipe")
            calls(one)
elif sys.argv[1] == "sentinel":
    sentinel([int(port) for port in sys.argv[2].split(",")], int(sys.argv[3]))
else:
    count(redis.Redis(port=int(sys.argv[2])), float(sys.argv[3]))
