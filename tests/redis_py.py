"""redis-py, which nobody of this project wrote, against a running cluster.

redis_py.py calls PORT                 its calls, one after the other
redis_py.py count PORT SECONDS         increments and prints: acknowledged, unknown, the counter at the end
"""

import sys
import time

import redis


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


if sys.argv[1] == "calls":
    for version in (2, 3):
        with redis.Redis(port=int(sys.argv[2]), protocol=version) as one:
            one.delete("k", "a", "b", "pipe")
            calls(one)
else:
    count(redis.Redis(port=int(sys.argv[2])), float(sys.argv[3]))
