//! Section 5.3: log replication, and the receiver of AppendEntries (Figure 2).

use crate::common::cluster::Cluster;
use crate::common::core::*;
use crate::outcome;
use raftkv::raft::{
    AppendOutcome, Bytes, Index, Log, NodeId, Payload, Position, Raft, Ready, Term,
};
use std::rc::Rc;

/// §5.3: "the leader appends the command to its log as a new entry, then issues AppendEntries RPCs
/// in parallel to each of the other servers".
#[test]
fn a_leader_appends_a_command_and_sends_it_to_everybody() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let position = raft.propose(command("a")).expect("a leader");
    assert_eq!(position, Position { index: 2, term: 1 });
    let Ready { early, entries, .. } = turn(&mut raft);
    assert_eq!((entries.len(), &entries[0].payload), (1, &command("a")));
    assert_eq!(early, [2, 3].map(|to| (to, append(1, (1, 1), 1, entries.clone()))));
    assert_eq!(raft.commit_index(), 1, "sent is not committed");
}

/// §5.3: "a log entry is committed once the leader that created the entry has replicated it on a
/// majority of the servers".
#[test]
fn an_entry_is_committed_once_a_majority_has_it() {
    let cases: &[(u64, &[NodeId], bool)] = &[
        (3, &[], false),
        (3, &[2], true),
        (3, &[3], true),
        (5, &[2], false),
        (5, &[2, 2], false),
        (5, &[2, 5], true),
        (5, &[2, 3, 4, 5], true),
        (3, &[9], false),
    ];
    for (voters, acks, committed) in cases {
        let mut raft = settled_leader(1, *voters, 1, &[]);
        raft.propose(command("a")).expect("a leader");
        turn(&mut raft);
        for from in *acks {
            step(&mut raft, *from, accepted(1, 2));
        }
        assert_eq!(raft.commit_index() == 2, *committed, "{voters} voters, acks of {acks:?}");
    }
}

/// §5.3: "this also commits all preceding entries in the leader's log, including entries created by
/// previous leaders".
#[test]
fn a_commit_covers_all_preceding_entries() {
    for log in [&[][..], &[2], &[1, 2], &[1]] {
        let mut raft = leader(1, 3, 3, log);
        assert_eq!(raft.commit_index(), 0);
        step(&mut raft, 2, accepted(3, log.len() as Index + 1));
        assert_eq!(raft.commit_index(), log.len() as Index + 1);
    }
}

/// §5.3: "the leader keeps track of the highest index it knows to be committed, and it includes
/// that index in future AppendEntries RPCs (including heartbeats) so that the other servers
/// eventually find out".
#[test]
fn heartbeats_carry_the_commit_index() {
    let mut raft = leader(1, 3, 1, &[]);
    step(&mut raft, 2, accepted(1, 1));
    for _ in 0..HEARTBEAT_TICKS {
        raft.tick();
    }
    assert_eq!(sent_to(&mut raft, 2), [append(1, (1, 1), 1, vec![])]);
}

/// §5.3: "once a follower learns that a log entry is committed, it applies the entry to its local
/// state machine (in log order)".
#[test]
fn a_follower_commits_what_the_leader_says() {
    for commit in 0..=3 {
        let mut raft = follower(2, 3, 1, &[]);
        step(&mut raft, 1, append(1, (0, 0), commit, entries(1, &[1, 1, 1])));
        assert_eq!(raft.commit_index(), commit);
    }
}

/// §5.3: "if followers crash or run slowly, or if network packets are lost, the leader retries
/// AppendEntries RPCs indefinitely".
#[test]
fn entries_that_were_lost_are_sent_again_until_they_arrive() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let slow = *cluster.ids().iter().find(|id| **id != leader).expect("another server");
    cluster.isolate(slow);
    cluster.propose(leader, "a").expect("a leader");
    cluster.turn(leader);
    cluster.run(10 * ELECTION_TICKS_MAX);
    let last = cluster.raft(leader).log().last();
    assert!(cluster.raft(slow).log().last().index < last.index);
    cluster.heal();
    cluster.run_until(3 * HEARTBEAT_TICKS, |cluster| cluster.raft(slow).log().last() == last);
}

/// §5.3: "if the follower does not find an entry in its log with the same index and term, then it
/// refuses the new entries".
#[test]
fn a_follower_checks_the_entry_before_the_new_ones() {
    let cases: &[((Index, Term), bool)] =
        &[((0, 0), true), ((1, 1), true), ((2, 2), true), ((1, 2), false), ((3, 3), false)];
    for (prev, matches) in cases {
        let mut raft = follower(2, 3, 3, &[1, 2]);
        step(&mut raft, 1, append(3, *prev, 0, vec![]));
        let expected = |outcome| match outcome {
            AppendOutcome::Accepted { match_index } => *matches && match_index == prev.0,
            AppendOutcome::Rejected { prev_log_index, .. } => !matches && prev_log_index == prev.0,
        };
        let outcome = outcome(&only_reply(&mut raft));
        assert!(expected(outcome), "{prev:?}: {outcome:?}");
    }
}

/// Figure 2, AppendEntries receiver, steps 3 and 4: "if an existing entry conflicts with a new one
/// (same index but different terms), delete the existing entry and all that follow it; append any
/// new entries not already in the log".
#[test]
fn a_follower_replaces_conflicting_entries_and_keeps_matching_ones() {
    type Terms = &'static [Term];
    let cases: &[((Index, Term), Terms, Terms, Terms)] = &[
        ((2, 2), &[3], &[1, 2, 3], &[3]),
        ((1, 1), &[3, 4], &[1, 3, 4], &[3, 4]),
        ((0, 0), &[1], &[1, 2], &[]),
        ((0, 0), &[3], &[3], &[3]),
        ((0, 0), &[1, 2], &[1, 2], &[]),
        ((0, 0), &[1, 2, 4], &[1, 2, 4], &[4]),
    ];
    for (prev, new, expected, written) in cases {
        let mut raft = follower(2, 3, 4, &[1, 2]);
        step(&mut raft, 1, append(4, *prev, 0, entries(prev.0 + 1, new)));
        assert_eq!(terms(&raft), *expected, "{prev:?} {new:?}");
        let Ready { entries, messages, .. } = turn(&mut raft);
        let given: Vec<Term> = entries.iter().map(|entry| entry.term).collect();
        assert_eq!(given, *written, "{prev:?} {new:?}: only what is new is written");
        let match_index = prev.0 + new.len() as Index;
        assert_eq!(messages, [(1, accepted(4, match_index))]);
    }
}

/// Figure 2, AppendEntries receiver, step 1: "reply false if term < currentTerm".
#[test]
fn step_1_an_older_term_is_refused() {
    let mut raft = follower(2, 3, 3, &[1]);
    step(&mut raft, 1, append(2, (1, 1), 1, entries(2, &[2])));
    assert!(matches!(outcome(&only_reply(&mut raft)), AppendOutcome::Rejected { .. }));
    assert_eq!((terms(&raft), raft.commit_index(), raft.leader()), (vec![1], 0, None));
}

/// Figure 2, AppendEntries receiver, step 2: "reply false if log doesn't contain an entry at
/// prevLogIndex whose term matches prevLogTerm"; nothing is taken, nothing removed, nothing
/// committed.
#[test]
fn step_2_a_gap_or_another_term_is_refused_and_changes_nothing() {
    for prev in [(2, 2), (3, 1), (9, 1)] {
        let mut raft = follower(2, 3, 3, &[1, 1]);
        step(&mut raft, 1, append(3, prev, 9, entries(prev.0 + 1, &[3])));
        assert!(matches!(outcome(&only_reply(&mut raft)), AppendOutcome::Rejected { .. }));
        assert_eq!((terms(&raft), raft.commit_index()), (vec![1, 1], 0));
    }
}

/// Figure 2, AppendEntries receiver, step 3, by contraposition: where nothing conflicts, nothing is
/// deleted.
#[test]
fn step_3_entries_after_a_match_stay() {
    let mut raft = follower(2, 3, 2, &[1, 1, 2, 2]);
    step(&mut raft, 1, append(2, (1, 1), 0, entries(2, &[1])));
    assert_eq!(terms(&raft), [1, 1, 2, 2]);
    assert_eq!(only_reply(&mut raft), accepted(2, 2), "it vouches for what was compared");
}

/// Figure 2, AppendEntries receiver, step 4: an acknowledgement leaves together with what it
/// vouches for.
#[test]
fn a_message_that_is_known_in_part_is_not_kept_for_the_rest_of_it() {
    for (known, is_kept) in [(0, true), (1, false), (2, false)] {
        let mut raft = follower(2, 3, 1, &[1; 2][..known]);
        let block: Rc<[u8]> = (*b"1@12@13@1").into();
        let in_memory = Rc::downgrade(&block);
        let mut sent = entries(1, &[1; 3]);
        for (at, entry) in sent.iter_mut().enumerate() {
            let part = Payload::Command(Bytes::part_of(&block, 3 * at..3 * (at + 1)));
            assert_eq!(entry.payload, part);
            entry.payload = part;
        }
        drop(block);
        raft.step(1, append(1, (0, 0), 0, sent)).expect("no contradiction");
        turn(&mut raft);
        assert!(raft.log().iter_from(1).eq(&entries(1, &[1; 3])));
        assert_eq!(in_memory.upgrade().is_some(), is_kept, "{known} entries were known");
    }
}

#[test]
fn step_4_entries_are_durable_before_they_are_acknowledged() {
    let mut raft = follower(2, 3, 1, &[]);
    step(&mut raft, 1, append(1, (0, 0), 0, entries(1, &[1, 1])));
    let ready = raft.take_ready();
    assert_eq!(ready.entries, entries(1, &[1, 1]));
    assert_eq!(ready.messages, [(1, accepted(1, 2))]);
    assert!(ready.early.is_empty(), "nothing leaves before the sync");
}

/// Figure 2, AppendEntries receiver, step 5: "if leaderCommit > commitIndex, set commitIndex =
/// min(leaderCommit, index of last new entry)": what lies behind was not compared and may be
/// another leader's.
#[test]
fn step_5_the_commit_index_stops_at_the_last_new_entry() {
    for (prev, new, leader_commit, commit) in [
        ((1, 1), &[][..], 3, 1),
        ((1, 1), &[1], 3, 2),
        ((1, 1), &[1, 3], 2, 2),
        ((1, 1), &[1, 3], 9, 3),
        ((0, 0), &[], 9, 0),
    ] {
        let mut raft = follower(2, 3, 3, &[1, 1, 2]);
        step(&mut raft, 1, append(3, prev, leader_commit, entries(prev.0 + 1, new)));
        assert_eq!(raft.commit_index(), commit, "{prev:?} {new:?}");
    }
}

/// §5.3, step 5: an older message does not take a commit back.
#[test]
fn a_smaller_leader_commit_changes_nothing() {
    let mut raft = follower(2, 3, 1, &[]);
    step(&mut raft, 1, append(1, (0, 0), 2, entries(1, &[1, 1])));
    step(&mut raft, 1, append(1, (0, 0), 1, entries(1, &[1])));
    assert_eq!((raft.commit_index(), raft.log().last().index), (2, 2));
}

/// §5.3: "a leader never overwrites or deletes entries in its log" (Leader Append-Only).
#[test]
fn a_leader_only_appends_to_its_own_log() {
    let mut raft = leader(1, 3, 4, &[1, 2, 3]);
    for reply in [rejected(4, 3, (0, 0)), rejected(4, 0, (9, 9)), accepted(4, 99)] {
        step(&mut raft, 2, reply);
        turn(&mut raft);
        assert_eq!(terms(&raft), [1, 2, 3, 4]);
    }
}

/// Figure 7: "when the leader at the top comes to power, it is possible that any of scenarios (a-f)
/// could occur in follower logs"; §5.3: it brings them all to its own.
#[test]
fn figure_7_the_leader_brings_every_log_to_its_own() {
    let leader_log: &[Term] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let scenarios: &[(char, &[Term])] = &[
        ('a', &[1, 1, 1, 4, 4, 5, 5, 6, 6]),
        ('b', &[1, 1, 1, 4]),
        ('c', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ('d', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ('e', &[1, 1, 1, 4, 4, 4, 4]),
        ('f', &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ];
    for (name, follower_log) in scenarios {
        let mut leader = leader(1, 3, 8, leader_log);
        let mut follower = follower(2, 3, 8, follower_log);
        // The third server is the majority that elected the leader; it stays silent.
        for _ in 0..20 {
            for _ in 0..HEARTBEAT_TICKS {
                leader.tick();
            }
            for message in sent_to(&mut leader, 2) {
                step(&mut follower, 1, message);
            }
            for (_, message) in sent(&mut follower) {
                step(&mut leader, 2, message);
            }
        }
        assert_eq!(terms(&follower), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8], "scenario {name}");
        let log_of = |raft: &Raft| -> Vec<_> { raft.log().iter_from(1).cloned().collect() };
        assert_eq!(log_of(&follower), log_of(&leader), "scenario {name}");
        assert_eq!(follower.commit_index(), 11, "scenario {name}");
    }
}

/// §5.3, "the Log Matching Property" of the log itself: the newest place where two logs can agree.
#[test]
fn whole_terms_are_skipped_on_the_way_back() {
    let log = Log::new(Position::default(), entries(1, &[1, 1, 1, 4, 4, 6, 6]));
    let place = |index, term| Position { index, term };
    assert_eq!(log.last_possible_match(7, 6), place(7, 6));
    assert_eq!(log.last_possible_match(7, 5), place(5, 4));
    assert_eq!(log.last_possible_match(7, 3), place(3, 1));
    assert_eq!(log.last_possible_match(99, 4), place(5, 4), "beyond the end");
    assert_eq!(log.last_possible_match(2, 9), place(2, 1), "not beyond what was asked");
    assert_eq!(log.last_possible_match(7, 0), place(0, 0));
}
