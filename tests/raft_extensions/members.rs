//! Membership changes (section 6; thesis 4.1 to 4.2.3): one at a time, through learners, and in force as soon
//! as they are in the log.

use crate::*;
use raftkv::raft::{
    Change, ChangeError, Config, HardState, MEMBERS_MAX, Membership, Position, REMOVED_MAX,
    Restored,
};
use std::collections::BTreeSet;
use std::rc::Rc;

const NEW: NodeId = 4;

fn add(id: NodeId, replaces: Option<NodeId>) -> Change {
    Change::AddLearner { id, name: format!("raft-{id}"), address: format!("host-{id}:1"), replaces }
}

/// A node with an empty disk that nobody has told anything.
fn waiting(id: NodeId) -> Raft {
    started(Config { voters: BTreeSet::new(), ..config(id, 3) }, 0, &[])
}

/// `voters` voters and servers 4 to `last`, which wait to be taken in.
fn cluster_with_guests(voters: u64, last: u64) -> Cluster {
    Cluster::with(last, |config| {
        config.voters = if config.id <= voters { (1..=voters).collect() } else { BTreeSet::new() };
    })
}

/// Proposes the change once it is possible, and lets it be committed everywhere.
fn change(cluster: &mut Cluster, change: &Change) -> NodeId {
    for _ in 0..200 {
        if let Some(leader) = cluster.leader()
            && let Ok(position) = cluster.server_mut(leader).core_mut().propose_change(change)
        {
            cluster.run(4 * HEARTBEAT_TICKS);
            let is_committed = |raft: &Raft| raft.commit_index() >= position.index;
            let mut cores = cluster.servers().filter_map(|(_, server)| server.core());
            assert!(cores.any(is_committed), "{}", cluster.summary());
            return leader;
        }
        cluster.run(1);
    }
    panic!("{change:?} is not possible: {}", cluster.summary());
}

fn voters(raft: &Raft) -> Vec<NodeId> {
    raft.membership().voters().collect()
}

// One at a time (M02, M05).

#[test]
fn a_change_before_the_first_commit_of_the_leaders_term_is_refused() {
    let mut raft = leader(1, 3, 1, &[]);
    assert_eq!(raft.propose_change(&add(NEW, None)), Err(ChangeError::TermNotBegun));
    accepts(&mut raft, 2, 1);
    turn(&mut raft);
    assert!(raft.propose_change(&add(NEW, None)).is_ok());
}

#[test]
fn a_second_change_while_one_is_under_way_is_refused() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let first = raft.propose_change(&add(NEW, None)).expect("the first");
    assert_eq!(raft.propose_change(&add(5, None)), Err(ChangeError::UnderWay));
    turn(&mut raft);
    assert_eq!(raft.propose_change(&add(5, None)), Err(ChangeError::UnderWay), "not committed");
    accepts(&mut raft, 2, first.index);
    assert!(raft.propose_change(&add(5, None)).is_ok());
}

#[test]
fn only_a_leader_changes_the_members() {
    let mut raft = follower(2, 3, 1, &[]);
    assert_eq!(raft.propose_change(&add(NEW, None)), Err(ChangeError::NotLeader));
}

#[test]
fn changes_that_make_no_sense_are_refused_with_the_reason() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    for (change, error) in [
        (add(2, None), ChangeError::AlreadyMember),
        (add(NEW, Some(9)), ChangeError::NotAMember),
        (Change::Promote { id: 2 }, ChangeError::AlreadyVoter),
        (Change::Promote { id: 9 }, ChangeError::NotAMember),
        (Change::Remove { id: 9 }, ChangeError::NotAMember),
    ] {
        assert_eq!(raft.propose_change(&change), Err(error), "{change:?}");
    }
}

/// Its disk is still the one of the node that was removed, and that one has promised things.
#[test]
fn who_was_removed_does_not_come_back() {
    let mut raft = alone();
    for change in [add(2, None), Change::Remove { id: 2 }] {
        raft.propose_change(&change).expect("one at a time");
        turn(&mut raft);
        turn(&mut raft);
    }
    assert_eq!(raft.propose_change(&add(2, None)), Err(ChangeError::WasRemoved));
    assert!(raft.propose_change(&add(3, None)).is_ok());
}

/// With two voters left of which one is silent, nothing could be committed any more.
#[test]
fn a_removal_that_would_leave_too_few_that_answer_is_refused() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let only_two_answers = |raft: &mut Raft| {
        for _ in 0..ELECTION_TICKS_MIN {
            raft.tick();
            turn(raft);
            accepts(raft, 2, 1);
        }
    };
    only_two_answers(&mut raft);
    assert_eq!(raft.propose_change(&Change::Remove { id: 2 }), Err(ChangeError::WouldLoseQuorum));
    assert!(raft.propose_change(&Change::Remove { id: 3 }).is_ok());
}

#[test]
fn the_last_voter_is_not_removed() {
    let mut raft = alone();
    assert_eq!(raft.propose_change(&Change::Remove { id: 1 }), Err(ChangeError::WouldLoseQuorum));
}

#[test]
fn there_are_no_more_members_than_there_may_be() {
    let mut raft = alone();
    for id in 2..=MEMBERS_MAX as NodeId {
        raft.propose_change(&add(id, None)).expect("there is room");
        turn(&mut raft);
        turn(&mut raft);
    }
    assert_eq!(raft.propose_change(&add(99, None)), Err(ChangeError::TooMany));
}

#[test]
fn only_so_many_of_those_that_were_removed_are_remembered() {
    let mut raft = alone();
    for id in 2..REMOVED_MAX as NodeId + 4 {
        for change in [add(id, None), Change::Remove { id }] {
            raft.propose_change(&change).expect("one at a time");
            turn(&mut raft);
            turn(&mut raft);
        }
    }
    assert_eq!(raft.membership().removed.len(), REMOVED_MAX);
    assert!(!raft.membership().was_removed(3) && raft.membership().was_removed(4));
}

// Learners (M06).

#[test]
fn a_new_node_learns_the_log_before_it_may_vote() {
    let mut cluster = cluster_with_guests(3, NEW);
    let leader = cluster.elect();
    for n in 0..20 {
        cluster.propose(leader, &format!("{n}")).unwrap();
    }
    cluster.run(4 * HEARTBEAT_TICKS);
    assert_eq!(cluster.raft(NEW).role_name(), "waiting");
    change(&mut cluster, &add(NEW, None));
    assert_eq!(cluster.raft(NEW).role_name(), "learner");
    assert_eq!(cluster.raft(NEW).commit_index(), cluster.raft(leader).commit_index());
    change(&mut cluster, &Change::Promote { id: NEW });
    assert_eq!(voters(cluster.raft(NEW)), [1, 2, 3, NEW]);
    assert_eq!(cluster.raft(NEW).role_name(), "follower");
}

#[test]
fn a_learner_that_has_not_caught_up_or_does_not_answer_is_not_promoted() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let added = raft.propose_change(&add(NEW, None)).unwrap();
    turn(&mut raft);
    accepts(&mut raft, 2, added.index);
    let promote = Change::Promote { id: NEW };
    assert_eq!(raft.propose_change(&promote), Err(ChangeError::NotCaughtUp), "it never answered");
    let rejection = rejected(raft.term(), added.index - 1, (0, 0));
    step(&mut raft, NEW, rejection);
    assert_eq!(raft.propose_change(&promote), Err(ChangeError::NotCaughtUp), "it has nothing");
    accepts(&mut raft, NEW, added.index);
    assert!(raft.has_caught_up(NEW));
    for _ in 0..ELECTION_TICKS_MIN {
        raft.tick();
        accepts(&mut raft, 2, added.index);
    }
    assert_eq!(raft.propose_change(&promote), Err(ChangeError::NotCaughtUp), "it is silent");
}

#[test]
fn learners_count_neither_for_commits_nor_for_reads_nor_for_the_quorum() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    let added = raft.propose_change(&add(NEW, None)).unwrap();
    turn(&mut raft);
    accepts(&mut raft, 2, added.index);
    let written = propose(&mut raft, 1);
    assert!(raft.read(7));
    turn(&mut raft);
    let reply = accepted_in_round(raft.term(), written, 1);
    step(&mut raft, NEW, reply);
    turn(&mut raft);
    assert_eq!((raft.commit_index(), raft.take_reads().len()), (added.index, 0));
    for _ in 0..3 * ELECTION_TICKS_MIN {
        raft.tick();
        turn(&mut raft);
        accepts(&mut raft, NEW, written);
    }
    assert!(!raft.is_leader(), "only a learner answers");
}

/// Of two voters both are needed, though the leader and a learner are two of three members.
#[test]
fn a_learner_does_not_count_in_the_place_of_a_voter() {
    let mut raft = settled_leader(1, 2, 1, &[]);
    let added = raft.propose_change(&add(NEW, None)).unwrap();
    turn(&mut raft);
    accepts(&mut raft, NEW, added.index);
    turn(&mut raft);
    assert!(raft.commit_index() < added.index);
    accepts(&mut raft, 2, added.index);
    assert_eq!(raft.commit_index(), added.index);
}

#[test]
fn a_learner_does_not_campaign_and_its_votes_count_for_nobody() {
    let mut cluster = cluster_with_guests(3, NEW);
    let leader = cluster.elect();
    change(&mut cluster, &add(NEW, None));
    let others: Vec<NodeId> = (1..=3).filter(|id| *id != leader).collect();
    cluster.crash(leader, 0);
    cluster.crash(others[0], 0);
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!(cluster.leader(), None, "one voter and a learner are no majority of three");
    assert_eq!(cluster.raft(NEW).role_name(), "learner");
    cluster.restart(others[0]);
    cluster.elect();
}

/// It may have become a voter without having heard of it (section 6).
#[test]
fn a_learner_votes_when_it_is_asked() {
    let membership = {
        let mut membership = Membership::of_voters(1..=3);
        let mut learner = membership.members[&1].clone();
        learner.is_voter = false;
        membership.members.insert(NEW, learner);
        Rc::new(membership)
    };
    let snapshot = Position { index: 5, term: 1 };
    let restored = Restored {
        hard_state: HardState { term: 1, voted_for: None },
        snapshot: Some(snapshot),
        membership,
        base: snapshot,
        ..Restored::default()
    };
    let mut raft = Raft::restore(config(NEW, 3), restored);
    assert_eq!(raft.role_name(), "learner");
    step(&mut raft, 2, request_vote(2, (5, 1)));
    assert_eq!(only_reply(&mut raft), vote(2, true));
}

// Founding, and lost disks.

#[test]
fn a_node_of_no_cluster_neither_votes_nor_campaigns() {
    let mut raft = waiting(1);
    for _ in 0..5 * ELECTION_TICKS_MAX {
        raft.tick();
    }
    assert_eq!((raft.role_name(), raft.has_ready()), ("waiting", false));
    step(&mut raft, 2, request_pre_vote(2, (1, 1)));
    assert_eq!(only_reply(&mut raft), pre_vote(0, false));
    step(&mut raft, 2, request_vote(2, (1, 1)));
    assert_eq!(only_reply(&mut raft), vote(2, false));
}

/// The founding may be compacted by then, and nobody could tell it.
#[test]
fn a_member_without_a_log_votes_once_there_was_a_leader() {
    let mut raft = waiting(1);
    step(&mut raft, 2, request_pre_vote(3, (5, 2)));
    assert_eq!(only_reply(&mut raft), pre_vote(3, true));
    step(&mut raft, 2, request_vote(3, (5, 2)));
    assert_eq!(only_reply(&mut raft), vote(3, true));
}

#[test]
fn a_founding_is_the_first_entry_and_the_same_everywhere() {
    let founding = Rc::new(Membership { cluster_id: 7, ..Membership::of_voters(1..=3) });
    for id in 1..=3 {
        let mut raft = waiting(id);
        raft.found(Rc::clone(&founding));
        let ready = turn(&mut raft);
        assert_eq!(ready.hard_state, Some(HardState { term: 1, voted_for: None }));
        let position = Position { index: 1, term: 1 };
        assert_eq!((raft.log().last(), raft.commit_index()), (position, 0));
        assert_eq!((voters(&raft), raft.role_name()), (vec![1, 2, 3], "follower"));
    }
}

/// A node that lost its disk is another node to Raft: the old one is removed and the new one learns, in one
/// entry, and there is no moment in which both count.
#[test]
fn a_member_that_lost_its_disk_is_replaced_by_a_learner() {
    let mut cluster = cluster_with_guests(3, NEW);
    let leader = cluster.elect();
    let lost = other_than(&cluster, &[leader, NEW]);
    cluster.crash(lost, 0);
    change(&mut cluster, &add(NEW, Some(lost)));
    let rest: Vec<NodeId> = (1..=3).filter(|id| *id != lost).collect();
    assert_eq!(voters(cluster.raft(leader)), rest);
    assert!(cluster.raft(leader).membership().was_removed(lost));
    change(&mut cluster, &Change::Promote { id: NEW });
    assert_eq!(voters(cluster.raft(NEW)).len(), 3);
}

// Removal (M03, M04).

#[test]
fn a_leader_that_removes_itself_does_not_count_itself_and_steps_down_when_that_is_committed() {
    let mut raft = settled_leader(1, 3, 1, &[]);
    for id in [2, 3] {
        accepts(&mut raft, id, 1);
    }
    let removal = raft.propose_change(&Change::Remove { id: 1 }).unwrap();
    turn(&mut raft);
    accepts(&mut raft, 2, removal.index);
    turn(&mut raft);
    assert!(raft.is_leader(), "itself and one of two others are no majority of those two");
    let term = raft.term();
    step(&mut raft, 3, accepted(term, removal.index));
    let sent = sent(&mut raft);
    assert!(!raft.is_leader() && raft.commit_index() == removal.index);
    let successors = sent.iter().filter(|(_, m)| *m == Message::TimeoutNow { term }).count();
    assert_eq!((raft.role_name(), successors), ("removed", 1), "{sent:?}");
    for _ in 0..5 * ELECTION_TICKS_MAX {
        raft.tick();
    }
    assert_eq!((raft.role_name(), raft.term()), ("removed", term), "it stays quiet");
}

#[test]
fn after_the_leader_has_removed_itself_the_others_go_on() {
    let mut cluster = Cluster::new(3);
    let removed = cluster.elect();
    change(&mut cluster, &Change::Remove { id: removed });
    let next = cluster.elect();
    assert_ne!(next, removed);
    let rest: Vec<NodeId> = (1..=3).filter(|id| *id != removed).collect();
    assert_eq!(voters(cluster.raft(next)), rest);
    let written = cluster.propose(next, "after it").unwrap();
    cluster.run(4 * HEARTBEAT_TICKS);
    assert_eq!(cluster.raft(next).commit_index(), written.index);
    assert!(cluster.raft(removed).commit_index() < written.index, "nothing is sent to it any more");
}

#[test]
fn a_removed_node_learns_of_it_and_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let removed = other_than(&cluster, &[leader]);
    change(&mut cluster, &Change::Remove { id: removed });
    assert_eq!(cluster.raft(removed).role_name(), "removed");
    let term = cluster.raft(leader).term();
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
}

/// It was cut off when it was removed, so it still believes that it is a voter.
#[test]
fn a_removed_node_that_does_not_know_it_disturbs_nobody() {
    let mut cluster = Cluster::new(4);
    let leader = cluster.elect();
    let removed = other_than(&cluster, &[leader]);
    cluster.isolate(removed);
    change(&mut cluster, &Change::Remove { id: removed });
    cluster.heal();
    let term = cluster.raft(leader).term();
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
    assert!(!cluster.raft(removed).is_removed(), "nobody has told it");
}

// In force as soon as it is in the log, and no longer than that.

#[test]
fn a_membership_that_is_truncated_is_out_of_force() {
    let mut cluster = cluster_with_guests(3, 5);
    let old = cluster.elect();
    cluster.isolate(old);
    cluster.server_mut(old).core_mut().propose_change(&add(NEW, None)).expect("it still leads");
    cluster.turn(old);
    assert!(cluster.raft(old).membership().contains(NEW));
    let rest: Vec<NodeId> = (1..=3).filter(|id| *id != old).collect();
    cluster.run_until(20 * ELECTION_TICKS_MAX, |c| rest.iter().any(|id| c.raft(*id).is_leader()));
    cluster.heal();
    cluster.elect();
    cluster.run(4 * HEARTBEAT_TICKS);
    assert!(!cluster.raft(old).membership().contains(NEW), "its entry is gone");
    assert_eq!(voters(cluster.raft(old)), [1, 2, 3]);
}

#[test]
fn a_membership_outlives_a_restart_and_comes_with_a_snapshot() {
    let mut cluster = cluster_with_guests(3, NEW);
    cluster.elect();
    change(&mut cluster, &add(NEW, None));
    let leader = change(&mut cluster, &Change::Promote { id: NEW });
    let expected = Rc::clone(cluster.raft(leader).membership());
    for id in 1..=NEW {
        cluster.crash(id, usize::MAX);
        cluster.restart(id);
        assert_eq!(cluster.raft(id).membership(), &expected, "server {id}");
    }
    let mut late = waiting(9);
    let (position, term) = (cluster.raft(leader).log().last(), cluster.raft(leader).term());
    let Position { index: last_included_index, term: last_included_term } = position;
    let data = b"state"[..].into();
    let chunk = Message::InstallSnapshot {
        term,
        last_included_index,
        last_included_term,
        offset: 0,
        data,
        done: true,
    };
    step(&mut late, leader, chunk);
    let chunk = late.take_ready().snapshot_chunks.remove(0);
    late.persisted();
    late.install_snapshot(&chunk, Rc::clone(&expected));
    assert_eq!(late.membership(), &expected);
}

#[test]
fn clusters_grow_to_seven_and_survive_three() {
    let mut cluster = cluster_with_guests(3, 7);
    cluster.elect();
    for id in NEW..=7 {
        change(&mut cluster, &add(id, None));
        change(&mut cluster, &Change::Promote { id });
    }
    for _ in 0..3 {
        let leader = cluster.elect();
        assert_eq!(voters(cluster.raft(leader)).len(), 7);
        cluster.crash(leader, 0);
    }
    let leader = cluster.elect();
    cluster.crash(leader, 0);
    cluster.run(20 * ELECTION_TICKS_MAX);
    assert_eq!(cluster.leader(), None, "four of seven are gone");
}

/// Thesis 4.2.2: the entry that removes a voter is on its disk only, and the other lacks what comes before it as
/// well. The other votes for nobody whose log is shorter, so the one that is to go has to lead once more.
#[test]
fn a_voter_whose_removal_nobody_else_knows_may_still_lead() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let other = other_than(&cluster, &[leader]);
    cluster.run(4 * HEARTBEAT_TICKS);
    cluster.isolate(leader);
    let removal = Change::Remove { id: leader };
    cluster.server_mut(leader).core_mut().propose_change(&removal).expect("it still leads");
    cluster.turn(leader);
    cluster.crash(leader, usize::MAX);
    cluster.restart(leader);
    cluster.heal();
    assert!(!cluster.raft(leader).is_removed(), "nobody has agreed to it yet");
    cluster.run_until(40 * ELECTION_TICKS_MAX, |c| c.raft(other).is_leader());
    assert_eq!(voters(cluster.raft(other)), [other]);
    assert!(cluster.raft(leader).is_removed());
}

#[test]
fn a_read_does_not_wait_for_a_voter_that_was_removed() {
    let mut raft = settled_leader(1, 2, 1, &[]);
    assert!(raft.read(7));
    turn(&mut raft);
    assert_eq!(raft.take_reads(), [], "node 2 has not answered");
    raft.propose_change(&Change::Remove { id: 2 }).expect("node 1 is enough");
    turn(&mut raft);
    let confirmed: Vec<u64> = raft.take_reads().iter().map(|read| read.id).collect();
    assert_eq!(confirmed, [7]);
}
