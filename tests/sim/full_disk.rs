//! A follower that needs its leader's snapshot, and has no room for it.

use super::faults::{Fault, Swarm};
use super::world::{Ending, MS, SECOND, World};

const SEEDS: std::ops::Range<u64> = 1..6;
/// Long enough for the others to drop the log that it needs.
const DOWN_MAX: u64 = 5 * SECOND;

#[test]
fn a_follower_without_room_for_a_snapshot_lives_on_and_takes_it_when_there_is_space() {
    for seed in SEEDS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let swarm = Swarm {
            snapshot_log_bytes: 200,
            think: 5 * MS,
            clients: 4,
            down_max: DOWN_MAX,
            ..Swarm::without_faults(&mut rng)
        };
        let mut world = World::of(swarm, rng, false);
        world.start_all();
        world.wait_for("commits", |world| world.judge.committed() > 100);
        let leader = world.leader().expect("they have just committed something");
        let id = world.ids().find(|id| *id != leader).expect("there are three");
        world.end_process(id, Ending::Process, None);
        world.fill_disk(id, u64::MAX);
        world.wait_for("a snapshot", |world| world.faults.has(Fault::IncomingGivenUp));
        let process = world.process_of(id);
        let then = world.judge.committed();
        world.wait_for("commits", |world| world.judge.committed() > then + 50);
        assert!(world.is_process(id, process), "it goes on without");

        world.host(id).full_until = 0;
        world.space_again(id);
        world.wait_for("the snapshot", |world| world.applied(id) > then + 50);
        assert!(world.is_process(id, process), "and needs no restart");
    }
}
