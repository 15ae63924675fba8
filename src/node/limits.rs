//! How long keys and values may be in this cluster. Each node has limits of its own, which should be alike, and are
//! not while they are being changed node by node. What one node takes, all have to store: the smallest limit counts.

use super::{Node, Peer};
use crate::kv::{Failure, Limits, Request};
use crate::ordered::Few;
use crate::raft::{Membership, NodeId};

/// What all members of the cluster take, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLimits {
    pub limits: Limits,
    /// The other member whose limit of keys is below this node's own.
    pub of_keys: Option<String>,
    /// The same of values.
    pub of_values: Option<String>,
}

impl ClusterLimits {
    pub(super) fn alone(limits: Limits) -> Self {
        ClusterLimits { limits, of_keys: None, of_values: None }
    }

    fn of(own: Limits, others: &Few<NodeId, Limits>, membership: &Membership) -> Self {
        let mut smallest = ClusterLimits::alone(own);
        for (id, limits) in others.iter() {
            let Some(member) = membership.members.get(id) else { continue };
            if limits.key_bytes_max < smallest.limits.key_bytes_max {
                smallest.limits.key_bytes_max = limits.key_bytes_max;
                smallest.of_keys = Some(member.name.clone());
            }
            if limits.value_bytes_max < smallest.limits.value_bytes_max {
                smallest.limits.value_bytes_max = limits.value_bytes_max;
                smallest.of_values = Some(member.name.clone());
            }
        }
        smallest
    }

    /// In words, if this node takes more than others do.
    pub fn trouble(&self, own: &Limits) -> Option<String> {
        let line = |what: &str, name: &Option<String>, limit: u32, own: u32| {
            let name = name.as_ref()?;
            Some(format!("{what} of up to {own} bytes, and {name} takes {limit}"))
        };
        let Limits { key_bytes_max: keys, value_bytes_max: values } = self.limits;
        let keys = line("keys", &self.of_keys, keys, own.key_bytes_max);
        let values = line("values", &self.of_values, values, own.value_bytes_max);
        let both: Vec<String> = keys.into_iter().chain(values).collect();
        (!both.is_empty()).then(|| {
            format!(
                "it would take {}; longer ones are refused: give all nodes the same limits",
                both.join(", ")
            )
        })
    }

    /// Refuses what another member would not take, and names it.
    pub(super) fn check(&self, request: &Request, own: &Limits) -> Result<(), Failure> {
        let keys = Limits { key_bytes_max: self.limits.key_bytes_max, ..*own };
        let values = Limits { value_bytes_max: self.limits.value_bytes_max, ..*own };
        for (limits, name) in [(keys, &self.of_keys), (values, &self.of_values)] {
            let Some(name) = name else { continue };
            limits.check_lengths(request).map_err(|mut failure| {
                failure.message += &format!(
                    "; {name} takes no more, and has to store it as well: nothing was done, give all nodes the same \
                     limits"
                );
                failure
            })?;
        }
        Ok(())
    }
}

impl Node {
    /// What all members take.
    pub fn cluster_limits(&self) -> &ClusterLimits {
        &self.cluster_limits
    }

    /// Another node has said what it takes. One that is away for a while has to store things when it comes back, so
    /// its word counts until it is no member any more.
    pub(super) fn note_limits(&mut self, peer: &Peer) {
        match peer.limits {
            Some(limits) => drop(self.others_limits.insert(peer.id, limits)),
            // An older version, which does not say it.
            None => drop(self.others_limits.remove(&peer.id)),
        }
        let membership = self.raft.membership();
        let (connected, own) = (&self.connected, peer.id);
        self.others_limits
            .retain(|id, _| *id == own || membership.contains(*id) || connected.contains_key(id));
        self.look_at_limits();
    }

    /// Members may have come or gone.
    pub(super) fn look_at_limits(&mut self) {
        let own = self.config.limits;
        let are_alike = self.others_limits.values().all(|limits| *limits == own);
        if !are_alike || self.cluster_limits.limits != own {
            let membership = self.raft.membership();
            self.cluster_limits = ClusterLimits::of(own, &self.others_limits, membership);
        }
    }
}
