//! What can be changed while the host runs.

use uuid::Uuid;
use vmbus::message::{Features, Version};

use super::Host;
use crate::{Latency, Limits, Memory, Refusals, ViolationKind};

impl<M: Memory> Host<M> {
    /// Versions that it accepts, from the guest's next hello on.
    pub fn set_versions(&mut self, versions: Vec<Version>) {
        self.config.versions = versions;
    }

    /// Features that it knows (6.0), from the guest's next hello on.
    pub fn set_features(&mut self, features: Features) {
        self.config.features = features;
    }

    /// hvsock services that guests can connect to from now on; connections that there are stay.
    pub fn set_services(&mut self, services: Vec<Uuid>) {
        self.config.services = services;
    }

    /// How long it takes over what comes from now on.
    pub fn set_latency(&mut self, latency: Latency) {
        self.config.latency = latency;
    }

    /// How often it refuses, from now on.
    pub fn set_refusals(&mut self, refusals: Refusals) {
        self.config.refusals = refusals;
    }

    /// What it bears from now on. The number of relids stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.config.limits = Limits { relids: self.config.limits.relids, ..limits };
    }

    /// What is counted and not held against the guest: also in the total of what was found so far.
    pub fn set_tolerated(&mut self, kinds: Vec<ViolationKind>) {
        self.checker.tolerate(kinds);
    }
}
