//! How much may be lost for good, so that what is left can still go on.
//!
//! Of every membership that is in force or may come into force, a majority of the voters has its disk, and all
//! that was on it, also without those whose removal somebody has asked for: it may happen at any time, until
//! it is known that it will not. A learner that is lost may become a voter all the same, if it was heard a moment
//! ago; so it counts as a voter that is lost.
//!
//! And of the initial members one at least keeps what it has. If a cluster has grown so much that all of them are a
//! minority, their disks may be lost within these bounds; but then they know nothing of any cluster, and when
//! they meet each other before they meet the others, they found a new one.

use super::world::{Health, Number, World};
use raftkv::raft::{Membership, NodeId, number, quorum};
use std::rc::Rc;

impl World {
    /// Whether those are enough that have lost nothing, and stay.
    pub fn is_enough(&self, stays: impl Fn(Number) -> bool) -> bool {
        self.memberships().iter().all(|membership| self.is_enough_of(membership, &stays))
    }

    fn is_enough_of(&self, membership: &Membership, stays: impl Fn(Number) -> bool) -> bool {
        let has_all = |id: NodeId| {
            let at = number(id);
            let is_the_same = self.node_of(at) == Some(id);
            is_the_same && self.host_ref(at).health == Health::Whole && stays(at)
        };
        let may_go = |id: NodeId| has_all(id) && self.operator.may_remove(number(id));
        let voters: Vec<NodeId> = membership.voters().filter(|id| !may_go(*id)).collect();
        let whole = voters.iter().filter(|id| has_all(**id)).count();
        let learners = membership.members.iter().filter(|(_, member)| !member.is_voter);
        let lost_learners = learners.filter(|(id, _)| !has_all(**id)).count();
        whole >= quorum::majority(voters.len() + lost_learners)
    }

    /// Whether an initial member remains that knows that there is a cluster.
    pub fn would_be_known_without(&self, id: Number) -> bool {
        let mut others = (1..=self.swarm.nodes).filter(|at| *at != id);
        !self.judge.electorates.is_founded() || others.any(|at| self.has_data(at))
    }

    fn has_data(&self, id: Number) -> bool {
        let view = self.node_of(id).and_then(|node| self.judge.views.get(&node));
        view.is_some_and(|view| view.durable.last_index() > 0)
    }

    /// Those that may be in force. Before a cluster is founded: the one that the founder would found, of whom it
    /// is, or believes that it is, connected to.
    fn memberships(&self) -> Vec<Rc<Membership>> {
        if self.judge.electorates.is_founded() {
            return self.judge.possible_memberships();
        }
        let as_founder_sees = |at: Number| self.network.connected_to(1, at).or(self.node_of(at));
        let voters = (1..=self.swarm.nodes).filter_map(as_founder_sees);
        vec![Rc::new(Membership::of_voters(voters))]
    }

    /// Whether it belongs to the cluster, and its disk shows it: of one that has nothing nothing can be lost, and
    /// one that is no member is not cured. Nor is one while nothing is committed: it may be the only one that has the
    /// founding, and then there is nobody to cure it.
    pub fn is_member_with_data(&self, id: Number) -> bool {
        let Some(node) = self.node_of(id) else { return false };
        self.judge.committed() > 0
            && self.has_data(id)
            && self.judge.possible_memberships().iter().all(|members| members.contains(node))
    }
}
