//! The texts of `--help`.

/// `cltraft --help`.
pub const OVERVIEW: &str = "\
cltraft: a client of raftkv that verifies what it reads

Usage: cltraft [OPTIONS]                     the main job: write, read back, verify, for ever
       cltraft [OPTIONS] COMMAND ARGUMENTS   one request

Commands:
  get KEY               print the value of KEY
  put KEY VALUE         write VALUE ('-': read it from standard input)
  del KEY               delete KEY
  cas KEY OLD NEW       write NEW if KEY holds OLD
  cas --absent KEY NEW  write NEW if KEY does not exist
  incr KEY [DELTA]      add DELTA (1) to a decimal number and print the result
  ttl KEY               how long KEY stays
  expire KEY TIME       KEY goes after TIME ('never': it stays)
  scan [PREFIX]         keys and values in order, those that begin with PREFIX
  status                a table of all servers, one line each
  why                   in words: why there is no leader, or what else is wrong
  digest                a hash of the whole store, its log index and number of keys
  changes               a line for every change from here on, until it is stopped
  member list           a table of the cluster's members, from the leader
  member add NODE       take in a node that waits, as a learner
  member promote NODE   make a learner that has caught up a voter
  member remove NODE    remove a member
  transfer [NODE]       hand leadership to NODE, or to the voter that is best prepared
  backup FILE           write the state of one moment to FILE ('-': standard output)
  restore FILE          write the keys of a backup into an empty cluster
  check FILE            whether FILE is a whole backup; needs no cluster
  bench                 measure throughput and latency
  verify                check that what many clients see is linearizable
  help [COMMAND]        this text, or more on one command

Options:
  --servers LIST   host:port,host:port,... (see below)
  --timeout TIME   give up a command after this time (10s; 0: never)
  --output table|json  how answers are written (table)
  --interval TIME  main job: pause between a read and the next write (2s; 0: none)
  --count N        main job: end after N writes and reads
  --prefix TEXT    main job: put TEXT before each key, so that clients do not collide;
                   changes: only of keys that begin with TEXT
  --from INDEX     changes: from this log index on
  --lang en|es     main job: language of its lines (else from LC_ALL, LC_MESSAGES, LANG)
  --listen ADDR    main job: answer probes at this address and port (0.0.0.0:7000 if
                   MISUBDOMINIODNS is set, else off; also RAFTKV_CLIENT_LISTEN)
  -h, --help       this text; after a command: more on it
  -V, --version    version

Options of one command are in its own help. A TIME is written 500ms, 2s, 1.5s, 2m or 1h.
Options may stand anywhere; what comes after -- is no option.

Servers: --servers, else the variable RAFTKV_SERVERS, else if MISUBDOMINIODNS is set (in
  Kubernetes) raft-0.$MISUBDOMINIODNS:6000 and so on (RAFTKV_REPLICAS of them, or 3;
  RAFTKV_PREFIX instead of 'raft'), else 127.0.0.1:6000, 127.0.0.1:6001, 127.0.0.1:6002.
  A host without a port means port 6000.

With --output json an answer is one object on one line (scan: one for each key). A key or
value that is UTF-8 is a string under its name; one that is not is base64 under NAME_base64.
Errors stay text on standard error, with the same exit status. Colours are only for a
terminal, and never if NO_COLOR is set.

The main job never stops for its output: a line waits a second for a slow reader, then it
is dropped and counted, and the count follows once there is room. So does the progress of
bench, verify, changes, backup and restore. The main job ends when the reader of its standard
output has exited, unless it answers probes (--listen). Everything else on standard output
waits for its reader, and is an error (3) if it cannot be written.

Exit status:
  0  done
  1  the answer is no: key missing, not swapped, wrong value read, cluster not healthy
  2  the command line makes no sense
  3  not done: nothing was changed
  4  outcome unknown: the write or change may or may not have been carried out
";

/// `cltraft help COMMAND`.
pub fn of(command: &str) -> &'static str {
    match command {
        "get" => GET,
        "put" => PUT,
        "del" => DEL,
        "cas" => CAS,
        "incr" => INCR,
        "ttl" => TTL,
        "expire" => EXPIRE,
        "scan" => SCAN,
        "status" => STATUS,
        "why" => WHY,
        "digest" => DIGEST,
        "changes" => CHANGES,
        "member" => MEMBER,
        "transfer" => TRANSFER,
        "backup" => BACKUP,
        "restore" => RESTORE,
        "check" => CHECK,
        "bench" => BENCH,
        "verify" => VERIFY,
        _ => OVERVIEW,
    }
}

const GET: &str = "\
Usage: cltraft get KEY

Prints the value of KEY as it is, and a newline. The read is linearizable: it sees every
write that was acknowledged before it began. A missing key prints nothing to standard output
and exits with 1.

Example: cltraft get colour
";

const PUT: &str = "\
Usage: cltraft put KEY VALUE
       cltraft put KEY VALUE --ttl TIME

Writes VALUE, whatever KEY held before. '-' as VALUE reads all of standard input, as it is.
A key or value that begins with '-' goes after --. With --ttl the key goes after TIME.
By default a key has up to 4 KiB and a value up to 1 MiB.

Examples: cltraft put colour blue
          cltraft put photo - < photo.jpg
          cltraft put -- -x -y
";

const DEL: &str = "\
Usage: cltraft del KEY

Deletes KEY. Exits with 1 if there was no such key.

Example: cltraft del colour
";

const CAS: &str = "\
Usage: cltraft cas KEY OLD NEW
       cltraft cas --absent KEY NEW

Compare and set: writes NEW if KEY holds exactly OLD, or with --absent if KEY does not exist.
Exits with 1 if nothing was written.

Examples: cltraft cas lock free mine
          cltraft cas --absent lock mine
";

const INCR: &str = "\
Usage: cltraft incr KEY [DELTA]

Adds DELTA (1, may be negative) to the decimal 64-bit number that KEY holds and prints the
result. A missing key counts as 0.

Examples: cltraft incr visits
          cltraft incr stock -5
";

const TTL: &str = "\
Usage: cltraft ttl KEY

Prints how long KEY stays, such as 59.998s, or 'never' if it does not go by itself. A missing
key exits with 1.

Example: cltraft ttl session
";

const EXPIRE: &str = "\
Usage: cltraft expire KEY TIME

From now on KEY goes after TIME, by the leader's clock; with 'never' as TIME it stays. A
missing key exits with 1. (cltraft put --ttl writes a key that goes.)

Examples: cltraft expire session 30m
          cltraft expire session never
";

const SCAN: &str = "\
Usage: cltraft scan [PREFIX]
       cltraft scan [PREFIX] [--start KEY] [--end KEY] [--limit N] [--keys-only]

Prints keys and values in the order of the keys' bytes: key, tab, value. --start begins at
that key, --end ends before that one, --limit after so many keys. Control characters,
backslashes and bytes that are not UTF-8 are written as \\n, \\u{1b}, \\\\ and \\xff.

It reads in pages, each of them linearizable. A key that is there all the time is printed
exactly once, whatever is written meanwhile; one that comes or goes may be printed or not.
(For the state at one moment: cltraft backup.)

Examples: cltraft scan user:
          cltraft scan --start a --end n --keys-only
          cltraft scan --output json --limit 100
";

const WHY: &str = "\
Usage: cltraft why

Asks every server how it is, and prints what each says in words: who leads, or why nobody
does, which nodes it cannot reach and since when, what is damaged or lags behind. The exit
status is 1 if anything is wrong anywhere, and 3 if no server answers at all.

Example: cltraft why
";

const STATUS: &str = "\
Usage: cltraft status

Asks every server what it knows and prints a table: node, role, term, commit and applied
index, size of the log on disk, leader, uptime, state of the connections to its peers. A
server that does not answer has its line too, with the reason. Warnings (no majority, no
leader, different opinions, a node that waits, is refused or was removed, lost disks) follow
on standard error, and then the exit status is 1; it is 3 if no server answers at all. Notes,
which do not change the exit status, are of members that none of the servers is, and of
nodes that were refused within the last minute.

Roles: leader; follower; candidate and pre-candidate, which ask to be elected; learner, a
member that catches up and has no vote; waiting, which belongs to no cluster yet; removed.

Example: cltraft --servers raft-0.raft-service,raft-1.raft-service status
";

const DIGEST: &str = "\
Usage: cltraft digest

Prints a hash of the whole state, the log index at which it was taken, and the number of
keys. The read is linearizable. Equal states have equal hashes.

Example output: 5f2c1d0e9ab34c77 index=120 keys=26
";

const CHANGES: &str = "\
Usage: cltraft changes [--prefix TEXT] [--from INDEX]

Prints what is committed from here on, or from INDEX on, in the order of the log, a line for
each change, until it is stopped:

  15 set user:1 Ann
  16 del user:2

The first word is the log index. Lines with the same index are of one write, which happened
as a whole; 'flush' alone stands for all keys. In keys and values \\n, \\t, \\r, \\\\ and \\xHH
stand for what would break a line, and in keys also for blanks.

Any server will do. When it is lost, another one goes on after the last index, which is said
on standard error; nothing is missing and nothing comes twice. If there is none for --timeout,
or the servers do not remember the changes any more (the message has 'compacted' in it, and
the index to go on from once the keys are read again), the exit status is 3. A signal ends it
with 0, or with 3 if it has to wait for its reader just then: what it printed of the last
index may not be all.

Examples: cltraft changes --prefix user:
          cltraft changes --from 1 > history
";

const MEMBER: &str = "\
Usage: cltraft member list
       cltraft member add NODE
       cltraft member promote NODE
       cltraft member remove NODE

list     asks the leader, and prints a table: node, number, whether it is a voter or a learner
         (which has no vote), the incarnation of its data folder, its address, and who leads.
         Nodes that wait to be taken in are listed too.
add      takes in a node that runs and waits, as a learner. If it has the name of a member,
         that member has lost its disk, and is removed by the same step.
promote  makes a learner that has caught up a voter.
remove   removes a member. It stays quiet from then on; stop it. With an empty folder it
         can come in again.

By default (srvraft --auto-members on) the leader adds and promotes by itself, so that only
remove is left to people. One change is made at a time; 'not possible' (exit status 3) means
that nothing was done, and says why.

Examples: cltraft member list
          cltraft member remove raft-3
";

const TRANSFER: &str = "\
Usage: cltraft transfer [NODE]

Hands leadership over to NODE, or to the voter that lacks least, and prints who leads then.
Requests that come meanwhile wait for a moment, and none is lost. If NODE does not take over
within an election timeout, the leader goes on, and the exit status is 3. (A leader that is
stopped with SIGTERM hands over by itself.)

Examples: cltraft transfer
          cltraft transfer raft-1
";

const BACKUP: &str = "\
Usage: cltraft backup FILE
       cltraft backup [--force] FILE

Writes all keys and values of one moment to FILE, while the cluster serves. Whatever was
acknowledged before the command began is in it. The leader takes a snapshot for it, and sends
it in pieces. FILE gets its name when all of it was checked and is on the disk; a file that is
there already is replaced only with --force. '-' as FILE is standard output. It takes as much
memory as the state. --timeout is for each piece.

If the server goes away meanwhile, or has taken newer snapshots, nothing is written (exit
status 3): begin again.

Examples: cltraft backup monday.backup
          cltraft backup - | zstd > monday.zst
";

const RESTORE: &str = "\
Usage: cltraft restore FILE
       cltraft restore [--merge] FILE

Checks all of FILE, and then writes its keys and values into the cluster, each write exactly
once. A cluster that holds keys is refused, with exit status 3; with --merge keys of the same
name are written over, and the others stay. If it is interrupted, run it again with --merge.
At the end it says whether the cluster's digest is that of the backup. Members, sessions and
the cluster's id are not restored. '-' as FILE is standard input.

Exit status: 1 if an empty cluster holds something else afterwards; 4 if it failed half-way.

Example: cltraft --servers 10.0.0.1:6000 restore monday.backup
";

const CHECK: &str = "\
Usage: cltraft check FILE

Reads all of a backup, compares every checksum and the digest of the state, and prints how
many keys it has, its size, digest, log index and cluster. It asks no server. '-' as FILE is
standard input. A file that is damaged has exit status 3, and where it is damaged is said.

Example: cltraft check monday.backup
";

const BENCH: &str = "\
Usage: cltraft bench
       cltraft bench [--clients N] [--pipeline N] [--duration TIME] [--warmup TIME]
                     [--value-size BYTES] [--keys N] [--reads PERCENT] [--rate N] [--seed N]

Sends writes (and reads) to the leader and measures how many are answered and how long each
takes. Keys are bench/0, bench/1 and so on; they are written over, and stay.

--clients N         connections (16), all driven by one thread
--pipeline N        requests under way on each (1; 64 with --rate)
--duration TIME     measured time (10s), after --warmup (1s)
--value-size BYTES  of a value (100)
--keys N            different keys (10000)
--reads PERCENT     of the requests are linearizable reads (0)
--rate N            open loop: N requests a second in all, whether answers come or not
--timeout TIME      a request without an answer for so long has failed (10s)
--seed N            of the choice of keys

Without --rate the loop is closed: a connection sends the next request when an answer comes,
so a server that stalls is asked less. With --rate, latency counts from the moment when a
request should have been sent, so that a stall is seen by all who had to wait. Nothing is
repeated: what fails is counted, by kind. The exit status is 3 if nothing was answered.

Examples: cltraft bench --clients 100 --reads 90
          cltraft bench --rate 2000 --duration 1m --output json
";

const VERIFY: &str = "\
Usage: cltraft verify
       cltraft verify [--clients N] [--keys N] [--duration TIME] [--seed N] [--prefix TEXT]

Many clients write, read, compare and set, increment and delete few keys at the same time, and
while they do, a checker looks for an order of the operations in which every answer is right:
each operation takes effect at one moment between its beginning and its end (it is
linearizable). Kill nodes meanwhile. Without --duration it goes on until it is stopped.

--clients N    each with an operation under way (8)
--keys N       the fewer, the more there is to find (5)
--timeout TIME an operation without an answer for so long has an unknown outcome (10s)
--seed N       of what is done; when it is done differs each time
--prefix TEXT  the keys are TEXTk0.0 and so on (verify-RANDOM/); they are deleted at the end

A line each second says how far it has come: operations answered, of unknown outcome, and
certainly not done; how many are checked; and windows of operations that were too unclear to
be decided. If there is no such order, it prints the least part of the operations that shows
so, with the one that does not fit marked, leaves the keys as they are, and exits with 1.

Example: cltraft verify --duration 10m --clients 16
";

#[cfg(test)]
mod tests {
    use super::super::suggest::COMMANDS;
    use super::*;

    #[test]
    fn every_command_has_its_text_and_its_line() {
        for (name, usage) in COMMANDS {
            assert!(OVERVIEW.contains(&format!("\n  {name} ")), "{name}");
            if name != "help" {
                let first = usage.split(", or ").next().unwrap();
                assert!(of(name).starts_with(&format!("Usage: {first}\n")), "{name}");
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_most_terminals() {
        for (name, _) in COMMANDS {
            for line in of(name).lines() {
                assert!(line.chars().count() <= 95, "{name}: {line}");
            }
        }
    }
}
